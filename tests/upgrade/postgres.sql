--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: log_stage(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.log_stage() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO stages (session_id, at, stage)
    VALUES (new.id, new.updated_at, CASE WHEN new.status = 'processing' THEN new.stage END);
    RETURN NULL;
END
$$;


--
-- Name: note_turn(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.note_turn() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO turns (who, turn) VALUES (new.owner, new.turn)
    ON CONFLICT (who) DO UPDATE SET turn = GREATEST(turns.turn, excluded.turn);
    IF new.address IS NOT NULL THEN
        INSERT INTO turns (who, turn) VALUES (new.address, new.turn)
        ON CONFLICT (who) DO UPDATE SET turn = GREATEST(turns.turn, excluded.turn);
    END IF;
    RETURN NULL;
END
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: _sqlx_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);


--
-- Name: chores; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chores (
    name text NOT NULL,
    node text NOT NULL,
    until bigint NOT NULL
);


--
-- Name: identity_links; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identity_links (
    hash text NOT NULL,
    owner text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint
);


--
-- Name: keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.keys (
    name text NOT NULL,
    value bytea NOT NULL
);


--
-- Name: segments; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.segments (
    session_id text NOT NULL COLLATE pg_catalog."C",
    idx bigint NOT NULL,
    start_s double precision NOT NULL,
    end_s double precision NOT NULL,
    text text NOT NULL,
    confidence double precision,
    words text NOT NULL
);


--
-- Name: sessions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.sessions (
    id text NOT NULL COLLATE pg_catalog."C",
    owner text NOT NULL,
    title text NOT NULL,
    created_at bigint NOT NULL,
    queued_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    updated_at bigint NOT NULL,
    engine text NOT NULL,
    model text,
    language text,
    file_name text NOT NULL,
    bytes bigint NOT NULL,
    format text NOT NULL,
    codec text NOT NULL,
    sample_rate bigint NOT NULL,
    channels bigint NOT NULL,
    version bigint NOT NULL,
    status text NOT NULL,
    stage text,
    progress double precision,
    message text NOT NULL,
    duration_processed double precision NOT NULL,
    duration_total double precision,
    estimated_completion bigint,
    processing_speed double precision,
    segments bigint NOT NULL,
    attempt bigint NOT NULL,
    crashes bigint NOT NULL,
    error_code text,
    error_message text,
    worker text,
    lease_until bigint,
    needs_room bigint,
    turn bigint DEFAULT 0 NOT NULL,
    address text,
    title_folded text DEFAULT ''::text NOT NULL,
    told_position bigint,
    remarks text DEFAULT ''::text NOT NULL,
    detected_language text,
    detected_probability double precision,
    vocabulary text,
    needs_model text
);


--
-- Name: stages; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.stages (
    seq bigint NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    at bigint NOT NULL,
    stage text
);


--
-- Name: stages_seq_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.stages ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.stages_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: turns; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.turns (
    who text NOT NULL,
    turn bigint NOT NULL
);


--
-- Name: waveforms; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.waveforms (
    session_id text NOT NULL COLLATE pg_catalog."C",
    peaks bytea NOT NULL
);


--
-- Name: write_probe; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.write_probe (
    id bigint NOT NULL,
    at bigint NOT NULL
);


--
-- Data for Name: _sqlx_migrations; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public._sqlx_migrations VALUES (1, 'sessions', '2026-11-27 00:03:02.287249+00', true, '\x34ffd7cfe81d4f8b3545085c355e83b9faac2c9f0decf72f3c4cad4f6ca370875116916892138c7a9a949371891ce4bc', 5996885);
INSERT INTO public._sqlx_migrations VALUES (2, 'stages', '2026-11-27 00:03:02.293652+00', true, '\x34dfa0b29109facf2784dac587eb999fe6bf7802fbd2a4588b725dc46aee52df7f324b4417f5245325c9e83ec4f3def8', 8687259);
INSERT INTO public._sqlx_migrations VALUES (3, 'keys', '2026-11-27 00:03:02.302537+00', true, '\xc32a422e9de1290d6ba278731d768bbd57808da7f0c5ec0ec47ac1ce4b15c8775e39218a0976db6eb32c8f0cbd4fc14f', 1755831);
INSERT INTO public._sqlx_migrations VALUES (4, 'identity links', '2026-11-27 00:03:02.304455+00', true, '\xe11a797b1fd25bbe042a7e4c4faf4004a8a6ef7e86362bb84644d05b426d0803f36baf1a257f935ca9f81b4e2d2df672', 2232444);
INSERT INTO public._sqlx_migrations VALUES (5, 'room', '2026-11-27 00:03:02.306874+00', true, '\xe5d41736c231b5696d90c3c0d274e97ef5275bb3ff9e5b9190de2e911d331c419feb8e0502ed99e1447a2da4e5b88fdb', 1236305);
INSERT INTO public._sqlx_migrations VALUES (6, 'shares', '2026-11-27 00:03:02.308256+00', true, '\xa3e3c6487ca54feaa17d7d067b05a30bc46e9ccb76916105db16bdd403a2ab19ace4ec193bb499177bdde86f0300d0f5', 4557756);
INSERT INTO public._sqlx_migrations VALUES (7, 'search and queue', '2026-11-27 00:03:02.313076+00', true, '\x15e2e4361f127b84a52087da9fe055802bc361b1941a43b5a5b3da644d1f45eb30ec23b824db660f28ff2f144466da40', 631014);
INSERT INTO public._sqlx_migrations VALUES (8, 'remarks', '2026-11-27 00:03:02.313864+00', true, '\xf41a3baf38b1c0d7fc0636c4c875458aecd47e5f1add9f4c11f7732f04aed9dd7aaad59385f459d0b77672bdd629b28e', 593579);
INSERT INTO public._sqlx_migrations VALUES (10, 'model', '2026-11-27 00:03:02.314542+00', true, '\xbeab113eb85b10e5db2791c6fd1d8ad9d52410286ade455a8dc505a728b571f477fc2128409358e506e6ece2d5c840ea', 332308);


--
-- Data for Name: chores; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: identity_links; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.identity_links VALUES ('45db14954473135fdefbb24934c562d7d15ed6457cb2f55acb4bb70a156bc681', 'd8665805dbbc4c1fb6872209a274ed84', 1795737784755, 1795738384755);


--
-- Data for Name: keys; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.keys VALUES ('cookie', '\x4f079e750e3510df5d10e379c5d5521d22bfa721ada1eec91f42da4243ee1bd81107c632dc60d1cde09e0889a6aa22ca1e2f5abb77432409d0cc03604fa0df06');


--
-- Data for Name: segments; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.segments VALUES ('01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 0, 0, 1, 'word at 0', NULL, '[]');
INSERT INTO public.segments VALUES ('01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1, 1, 2, 'word at 1', NULL, '[]');
INSERT INTO public.segments VALUES ('01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 0, 0, 1, 'word at 0', NULL, '[]');
INSERT INTO public.segments VALUES ('01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 1, 1, 2, 'word at 1', NULL, '[]');
INSERT INTO public.segments VALUES ('01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 2, 2, 3, 'word at 2', NULL, '[]');
INSERT INTO public.segments VALUES ('01a21a50-0f68-73a7-891b-c27f9d7bdecb', 0, 0, 1, 'from outside', NULL, '[]');


--
-- Data for Name: sessions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.sessions VALUES ('01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 'd8665805dbbc4c1fb6872209a274ed84', 'It fails', 1795737783276, 1795737783276, 1795737783303, 1795737784045, 1795737784045, 'command', 'counting', NULL, 'bad.wav', 160044, 'wav', 'pcm_s16le', 16000, 1, 1005, 'failed', 'transcribing', 60, 'The speech engine crashed (exit status: 3). The server''s log says more. Hark tried 1 time. What was transcribed is kept; Retry goes on from there.', 3, 5, NULL, NULL, 3, 1, 0, 'engine_crashed', 'The speech engine crashed (exit status: 3). The server''s log says more. Hark tried 1 time. What was transcribed is kept; Retry goes on from there.', NULL, NULL, NULL, 1, NULL, 'it fails', NULL, '', NULL, NULL, NULL, NULL);
INSERT INTO public.sessions VALUES ('01a21a50-0f68-73a7-891b-c27f9d7bdecb', 'd8665805dbbc4c1fb6872209a274ed84', 'By others', 1795737784168, 1795737784168, 1795737784215, NULL, 1795737784215, 'external', NULL, NULL, '', 0, '', '', 0, 0, 2, 'processing', 'transcribing', 30, 'On it', 1, 3, NULL, NULL, 1, 1, 0, NULL, NULL, NULL, 1795738684239, NULL, 0, NULL, 'by others', NULL, '', NULL, NULL, NULL, NULL);
INSERT INTO public.sessions VALUES ('01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 'd8665805dbbc4c1fb6872209a274ed84', 'Ärger im Büro', 1795737782514, 1795737782514, 1795737782552, 1795737783118, 1795737783118, 'command', 'counting', NULL, 'good.wav', 64044, 'wav', 'pcm_s16le', 16000, 1, 1006, 'completed', 'saving', 100, 'Finished', 2, 2, NULL, NULL, 2, 1, 0, NULL, NULL, NULL, NULL, NULL, 0, NULL, 'ärger im büro', NULL, '', NULL, NULL, NULL, NULL);
INSERT INTO public.sessions VALUES ('01a21a50-1097-73b7-a4b4-ad1a958a26a9', 'd8665805dbbc4c1fb6872209a274ed84', 'It waits', 1795737784522, 1795737784522, NULL, NULL, 1795737784522, 'command', NULL, NULL, 'good.wav', 64044, 'wav', 'pcm_s16le', 16000, 1, 1, 'queued', NULL, NULL, 'Waiting for its worker', 0, 2, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 2, NULL, 'it waits', NULL, '', NULL, NULL, NULL, NULL);
INSERT INTO public.sessions VALUES ('01a21a50-1126-7645-8d62-f422a5519cbc', 'd8665805dbbc4c1fb6872209a274ed84', 'Nobody wanted it', 1795737784658, 1795737784658, NULL, 1795737784695, 1795737784695, 'command', NULL, NULL, 'good.wav', 64044, 'wav', 'pcm_s16le', 16000, 1, 1001, 'cancelled', NULL, NULL, 'Cancelled', 0, 2, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 3, NULL, 'nobody wanted it', NULL, '', NULL, NULL, NULL, NULL);


--
-- Data for Name: stages; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (1, '01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1795737782552, 'decoding');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (2, '01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1795737782763, 'loading_model');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (3, '01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1795737783009, 'transcribing');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (4, '01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1795737783115, 'saving');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (5, '01a21a50-08a0-75ec-83d1-1d3f93c8dc68', 1795737783118, NULL);
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (6, '01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 1795737783303, 'decoding');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (7, '01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 1795737783390, 'loading_model');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (8, '01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 1795737783760, 'transcribing');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (9, '01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', 1795737784045, NULL);
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (10, '01a21a50-0f68-73a7-891b-c27f9d7bdecb', 1795737784215, 'transcribing');


--
-- Data for Name: turns; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.turns VALUES ('d8665805dbbc4c1fb6872209a274ed84', 1);
INSERT INTO public.turns VALUES ('@87045027ae4cfa0c', 1);


--
-- Data for Name: waveforms; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.waveforms VALUES ('01a21a50-08a0-75ec-83d1-1d3f93c8dc68', '\x3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f');
INSERT INTO public.waveforms VALUES ('01a21a50-0bc4-75ce-b2c8-d2cf93ac60de', '\x3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f');


--
-- Data for Name: write_probe; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: stages_seq_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.stages_seq_seq', 10, true);


--
-- Name: _sqlx_migrations _sqlx_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);


--
-- Name: chores chores_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);


--
-- Name: identity_links identity_links_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identity_links
    ADD CONSTRAINT identity_links_pkey PRIMARY KEY (hash);


--
-- Name: keys keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (name);


--
-- Name: segments segments_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.segments
    ADD CONSTRAINT segments_pkey PRIMARY KEY (session_id, idx);


--
-- Name: sessions sessions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);


--
-- Name: stages stages_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stages
    ADD CONSTRAINT stages_pkey PRIMARY KEY (seq);


--
-- Name: turns turns_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_pkey PRIMARY KEY (who);


--
-- Name: waveforms waveforms_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.waveforms
    ADD CONSTRAINT waveforms_pkey PRIMARY KEY (session_id);


--
-- Name: write_probe write_probe_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.write_probe
    ADD CONSTRAINT write_probe_pkey PRIMARY KEY (id);


--
-- Name: identity_links_by_end; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX identity_links_by_end ON public.identity_links USING btree (expires_at);


--
-- Name: identity_links_of_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX identity_links_of_owner ON public.identity_links USING btree (owner);


--
-- Name: sessions_by_end; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sessions_by_end ON public.sessions USING btree (finished_at, id) WHERE (finished_at IS NOT NULL);


--
-- Name: sessions_by_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sessions_by_owner ON public.sessions USING btree (owner, id);


--
-- Name: sessions_by_turn; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sessions_by_turn ON public.sessions USING btree (status, turn, queued_at, id);


--
-- Name: stages_by_session; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX stages_by_session ON public.stages USING btree (session_id);


--
-- Name: sessions sessions_stage; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER sessions_stage AFTER UPDATE OF status, stage ON public.sessions FOR EACH ROW WHEN ((
        CASE
            WHEN (new.status = 'processing'::text) THEN new.stage
            ELSE NULL::text
        END IS DISTINCT FROM
        CASE
            WHEN (old.status = 'processing'::text) THEN old.stage
            ELSE NULL::text
        END)) EXECUTE FUNCTION public.log_stage();


--
-- Name: sessions sessions_turn; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER sessions_turn AFTER UPDATE OF status ON public.sessions FOR EACH ROW WHEN (((old.status = 'queued'::text) AND (new.status = 'processing'::text) AND (new.engine <> 'external'::text))) EXECUTE FUNCTION public.note_turn();


--
-- Name: segments segments_session_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.segments
    ADD CONSTRAINT segments_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;


--
-- Name: stages stages_session_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stages
    ADD CONSTRAINT stages_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;


--
-- Name: waveforms waveforms_session_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.waveforms
    ADD CONSTRAINT waveforms_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;


--
-- PostgreSQL database dump complete
--


