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
CREATE FUNCTION public.log_stage() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO stages (session_id, at, stage)
    VALUES (new.id, new.updated_at, CASE WHEN new.status = 'processing' THEN new.stage END);
    RETURN NULL;
END
$$;
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
CREATE FUNCTION public.search_words(text text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT to_tsvector(
        'pg_catalog.simple',
        regexp_replace(left(text, 200000), '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007f]+', ' ', 'g'))
$$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE public.admin_password (
    one bigint NOT NULL,
    id text NOT NULL,
    hash text NOT NULL,
    changed_at bigint NOT NULL,
    CONSTRAINT admin_password_one_check CHECK ((one = 1))
);
CREATE TABLE public.admin_sign_ins (
    hash text NOT NULL,
    password text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE TABLE public.alert_errors (
    code text NOT NULL,
    first_at bigint NOT NULL
);
CREATE TABLE public.alert_figures (
    node text NOT NULL,
    figures text NOT NULL,
    at bigint NOT NULL
);
CREATE TABLE public.alert_messages (
    id text NOT NULL COLLATE pg_catalog."C",
    channel text NOT NULL,
    body text NOT NULL,
    failures bigint NOT NULL,
    created_at bigint NOT NULL,
    next_at bigint NOT NULL
);
CREATE TABLE public.alerts (
    name text NOT NULL,
    node text NOT NULL,
    detail text NOT NULL,
    owner text NOT NULL,
    since bigint NOT NULL,
    seen_at bigint NOT NULL
);
CREATE TABLE public.chores (
    name text NOT NULL,
    node text NOT NULL,
    until bigint NOT NULL
);
CREATE TABLE public.cluster (
    one bigint NOT NULL,
    id text NOT NULL,
    cookie_key text,
    cookie_key_before text,
    recordings text,
    CONSTRAINT cluster_one_check CHECK ((one = 1))
);
CREATE TABLE public.figures (
    starts_at bigint NOT NULL,
    seconds bigint NOT NULL,
    node text NOT NULL,
    counters text NOT NULL
);
CREATE TABLE public.identity_links (
    hash text NOT NULL,
    owner text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint
);
CREATE TABLE public.keys (
    name text NOT NULL,
    value bytea NOT NULL
);
CREATE TABLE public.nodes (
    id text NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    version text NOT NULL,
    workers bigint NOT NULL,
    running bigint NOT NULL,
    engines text NOT NULL,
    cookie_keys text NOT NULL,
    clock_ahead_ms bigint,
    problem text,
    started_at bigint NOT NULL,
    heartbeat_at bigint NOT NULL,
    load text
);
CREATE TABLE public.segments (
    session_id text NOT NULL COLLATE pg_catalog."C",
    idx bigint NOT NULL,
    start_s double precision NOT NULL,
    end_s double precision NOT NULL,
    text text NOT NULL,
    confidence double precision,
    words text NOT NULL,
    speaker bigint
);
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
    needs_model text,
    channel_choice text DEFAULT 'mix'::text NOT NULL,
    track text,
    tracks bigint DEFAULT 0 NOT NULL,
    first_segment bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.stages (
    seq bigint NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    at bigint NOT NULL,
    stage text
);
ALTER TABLE public.stages ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.stages_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.turns (
    who text NOT NULL,
    turn bigint NOT NULL
);
CREATE TABLE public.waveforms (
    session_id text NOT NULL COLLATE pg_catalog."C",
    peaks bytea NOT NULL
);
CREATE TABLE public.write_probe (
    id bigint NOT NULL,
    at bigint NOT NULL
);
INSERT INTO public._sqlx_migrations VALUES (1, 'sessions', '2026-11-27 18:22:13.16289+00', true, '\x34ffd7cfe81d4f8b3545085c355e83b9faac2c9f0decf72f3c4cad4f6ca370875116916892138c7a9a949371891ce4bc', 10021543);
INSERT INTO public._sqlx_migrations VALUES (2, 'stages', '2026-11-27 18:22:13.173363+00', true, '\x34dfa0b29109facf2784dac587eb999fe6bf7802fbd2a4588b725dc46aee52df7f324b4417f5245325c9e83ec4f3def8', 5357069);
INSERT INTO public._sqlx_migrations VALUES (3, 'keys', '2026-11-27 18:22:13.178952+00', true, '\xc32a422e9de1290d6ba278731d768bbd57808da7f0c5ec0ec47ac1ce4b15c8775e39218a0976db6eb32c8f0cbd4fc14f', 2866900);
INSERT INTO public._sqlx_migrations VALUES (4, 'identity links', '2026-11-27 18:22:13.181974+00', true, '\xe11a797b1fd25bbe042a7e4c4faf4004a8a6ef7e86362bb84644d05b426d0803f36baf1a257f935ca9f81b4e2d2df672', 4012330);
INSERT INTO public._sqlx_migrations VALUES (5, 'room', '2026-11-27 18:22:13.186158+00', true, '\xe5d41736c231b5696d90c3c0d274e97ef5275bb3ff9e5b9190de2e911d331c419feb8e0502ed99e1447a2da4e5b88fdb', 1696173);
INSERT INTO public._sqlx_migrations VALUES (6, 'shares', '2026-11-27 18:22:13.187989+00', true, '\xa3e3c6487ca54feaa17d7d067b05a30bc46e9ccb76916105db16bdd403a2ab19ace4ec193bb499177bdde86f0300d0f5', 7067512);
INSERT INTO public._sqlx_migrations VALUES (7, 'search and queue', '2026-11-27 18:22:13.195225+00', true, '\x15e2e4361f127b84a52087da9fe055802bc361b1941a43b5a5b3da644d1f45eb30ec23b824db660f28ff2f144466da40', 541028);
INSERT INTO public._sqlx_migrations VALUES (8, 'remarks', '2026-11-27 18:22:13.195865+00', true, '\xf41a3baf38b1c0d7fc0636c4c875458aecd47e5f1add9f4c11f7732f04aed9dd7aaad59385f459d0b77672bdd629b28e', 501299);
INSERT INTO public._sqlx_migrations VALUES (10, 'model', '2026-11-27 18:22:13.196463+00', true, '\xbeab113eb85b10e5db2791c6fd1d8ad9d52410286ade455a8dc505a728b571f477fc2128409358e506e6ece2d5c840ea', 804371);
INSERT INTO public._sqlx_migrations VALUES (11, 'speakers and tracks', '2026-11-27 18:22:13.197397+00', true, '\x7222f1b3c371f21279284da591333163a041fec553ff1ce14fb4924b6bffa7f94116b19fedfb6edc8beafb6ab10b5b3d', 707567);
INSERT INTO public._sqlx_migrations VALUES (12, 'cluster', '2026-11-27 18:22:13.19821+00', true, '\xb9371b406ae6dec5c090b63d341c0289d2b82d6975446ec58acfac66166d2733219852dfb340a8376f7dac15b87041e2', 5281506);
INSERT INTO public._sqlx_migrations VALUES (13, 'admin', '2026-11-27 18:22:13.203618+00', true, '\x9de5293c3d270f9baf9d3f79b5afcb65f160581d794f2dffc61257c90df59bbd92148a83e1495dd2ad3324666dd2f3d9', 5847661);
INSERT INTO public._sqlx_migrations VALUES (14, 'figures', '2026-11-27 18:22:13.209592+00', true, '\xa0fb0cc0927c1204606faeabeb17688d421de747c1e2ecd1e5e8616263dc545b315b268cd4eb7f395f5297f80c20994f', 2927150);
INSERT INTO public._sqlx_migrations VALUES (15, 'alerts', '2026-11-27 18:22:13.212626+00', true, '\x36313b2a27d1d0cdf9dec527baf1802a3a7e9e6c4be068248e30fe54e1d6302c06256942511d4b828240bae0e4c490d0', 10968356);
INSERT INTO public._sqlx_migrations VALUES (16, 'search', '2026-11-27 18:22:13.223771+00', true, '\x1a2a66f44973b99d3d3654b5be9a9c0044349730e418bd8513bf105ab10ce2cb6ff094ce101df19a316c1db492cf360f', 1620941);
INSERT INTO public.admin_password VALUES (1, 'c67431bdb57c4c4bbc4e3c0b206a8553', '$argon2id$v=19$m=19456,t=2,p=1$GoTxUtKan+4p5YkAitwh8g$TNAs/eL8kt04xQVZVOaLfrr7nnsMwNW+8IWKNMHsBvY', 1795803734743);
INSERT INTO public.chores VALUES ('leases', '4ed8dd21-564a-4531-91de-b43e3da6c1e8', 1795803739267);
INSERT INTO public.chores VALUES ('waits', '2c884d23-9b38-4f9e-aeb9-e36b3e08f287', 1795803739279);
INSERT INTO public.cluster VALUES (1, '94a32428-177e-46c9-9dbf-6cdae80597af', '1b2ba182', NULL, 'the folder file:///tmp/.tmpGjUdUZ/shared');
INSERT INTO public.figures VALUES (1795802400000, 3600, '0499931b-1aa7-4a73-859c-cfaa910442c6', '{"since":"2026-11-27T18:22:13.249Z","sessions":{"completed":2,"failed":1,"cancelled":2,"failures":{"worker_failed":1},"audio_secs":2.0,"work_secs":0.402963909},"server":{"minutes":0,"streams_opened":0,"streams_refused":0,"events":0,"stream_bytes":0,"polls":14,"polls_unchanged":0,"poll_bytes":4918,"most_streams":0,"cpu":0.0,"cpu_minutes":0,"most_memory":0}}');
INSERT INTO public.figures VALUES (1795803600000, 300, '0499931b-1aa7-4a73-859c-cfaa910442c6', '{"since":"2026-11-27T18:22:13.249Z","sessions":{"completed":2,"failed":1,"cancelled":2,"failures":{"worker_failed":1},"audio_secs":2.0,"work_secs":0.402963909},"server":{"minutes":0,"streams_opened":0,"streams_refused":0,"events":0,"stream_bytes":0,"polls":14,"polls_unchanged":0,"poll_bytes":4918,"most_streams":0,"cpu":0.0,"cpu_minutes":0,"most_memory":0}}');
INSERT INTO public.identity_links VALUES ('7c2e1cf03a8d8a7f8603e22382b4712c7fb941538b39de228b0bb9fc0e203c51', '7986f0fe15804961839f858c8fce73c5', 1795803734009, NULL);
INSERT INTO public.keys VALUES ('cookie', '\xf7d7acac3b7a1c44d6483ba0f079b1a2d721b145985132045191ccc5fa2f198ae082d3c7c2f77d3a948006ed41ee73da22b8dfe8db91ee9757fb24103a0beb0b');
INSERT INTO public.segments VALUES ('01a21e3e-5d34-7400-8151-2384bebfba4e', 0, 0, 1, 'word at 0', NULL, '[]', NULL);
INSERT INTO public.segments VALUES ('01a21e3e-5d34-7400-8151-2384bebfba4e', 1, 1, 2, 'word at 1', NULL, '[]', NULL);
INSERT INTO public.segments VALUES ('01a21e3e-5fe2-76cf-9903-ac7d3995b232', 0, 0, 1, 'the last words', NULL, '[]', NULL);
INSERT INTO public.segments VALUES ('01a21e3e-5fee-7343-b8a1-30c7bc5116e2', 0, 0, 1, 'from outside', NULL, '[]', NULL);
INSERT INTO public.sessions VALUES ('01a21e3e-5fee-7343-b8a1-30c7bc5116e2', '7986f0fe15804961839f858c8fce73c5', 'By others', 1795803733998, 1795803733998, 1795803734002, 1795803734007, 1795803734007, 'external', NULL, NULL, '', 0, '', '', 0, 0, 3, 'completed', NULL, 100, 'Finished', 100, 100, NULL, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, NULL, 0, NULL, 'by others', NULL, '', NULL, NULL, NULL, NULL, 'mix', NULL, 0, 0);
INSERT INTO public.sessions VALUES ('01a21e3e-6065-7456-b22e-8f8f442891c1', '7986f0fe15804961839f858c8fce73c5', 'It waits.wav', 1795803734131, 1795803734131, 1795803734655, NULL, 1795803734666, 'command', NULL, NULL, 'It waits.wav', 8364, 'wav', 'pcm_s16le', 16000, 1, 1003, 'queued', NULL, NULL, 'Reading the recording', 0, 0.26, NULL, NULL, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, NULL, 'it waits.wav', 0, '', NULL, NULL, NULL, NULL, 'mix', NULL, 1, 0);
INSERT INTO public.sessions VALUES ('01a21e3e-5d34-7400-8151-2384bebfba4e', '7986f0fe15804961839f858c8fce73c5', 'Ärger im Büro', 1795803733315, 1795803733315, 1795803733323, 1795803733944, 1795803733944, 'command', 'counting', 'de', 'talk.wav', 64044, 'wav', 'pcm_s16le', 16000, 1, 1006, 'completed', 'saving', 100, 'Finished', 2, 2, NULL, NULL, 2, 1, 0, NULL, NULL, NULL, NULL, NULL, 0, NULL, 'ärger im büro', NULL, '', NULL, NULL, 'Ärger', NULL, 'mix', NULL, 1, 0);
INSERT INTO public.sessions VALUES ('01a21e3e-607e-76f7-81c3-f055528574ef', '7986f0fe15804961839f858c8fce73c5', 'Nobody wanted it.wav', 1795803734174, 1795803734174, NULL, 1795803734185, 1795803734185, 'command', NULL, NULL, 'Nobody wanted it.wav', 8684, 'wav', 'pcm_s16le', 16000, 1, 1001, 'cancelled', NULL, NULL, 'Cancelled', 0, 0.27, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 2, NULL, 'nobody wanted it.wav', NULL, '', NULL, NULL, NULL, NULL, 'mix', NULL, 1, 0);
INSERT INTO public.sessions VALUES ('01a21e3e-5fe2-76cf-9903-ac7d3995b232', '7986f0fe15804961839f858c8fce73c5', 'It failed', 1795803733986, 1795803733986, 1795803733990, 1795803733996, 1795803733996, 'external', NULL, NULL, '', 0, '', '', 0, 0, 3, 'failed', NULL, 10, 'it broke', 0, 100, NULL, NULL, 1, 1, 0, 'worker_failed', 'it broke', NULL, NULL, NULL, 0, NULL, 'it failed', NULL, '', NULL, NULL, NULL, NULL, 'mix', NULL, 0, 0);
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (1, '01a21e3e-5d34-7400-8151-2384bebfba4e', 1795803733323, 'decoding');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (2, '01a21e3e-5d34-7400-8151-2384bebfba4e', 1795803733354, 'loading_model');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (3, '01a21e3e-5d34-7400-8151-2384bebfba4e', 1795803733534, 'transcribing');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (4, '01a21e3e-5d34-7400-8151-2384bebfba4e', 1795803733941, 'saving');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (5, '01a21e3e-5d34-7400-8151-2384bebfba4e', 1795803733944, NULL);
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (10, '01a21e3e-6065-7456-b22e-8f8f442891c1', 1795803734655, 'decoding');
INSERT INTO public.stages OVERRIDING SYSTEM VALUE VALUES (11, '01a21e3e-6065-7456-b22e-8f8f442891c1', 1795803734666, NULL);
INSERT INTO public.turns VALUES ('798823b065cf4af6978313fdf6a2a5d2', 1);
INSERT INTO public.turns VALUES ('@6e52bacc604bcf5a', 1);
INSERT INTO public.turns VALUES ('7986f0fe15804961839f858c8fce73c5', 1);
INSERT INTO public.waveforms VALUES ('01a21e3e-5d34-7400-8151-2384bebfba4e', '\x0808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808');
SELECT pg_catalog.setval('public.stages_seq_seq', 11, true);
ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.admin_password
    ADD CONSTRAINT admin_password_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.admin_sign_ins
    ADD CONSTRAINT admin_sign_ins_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY public.alert_errors
    ADD CONSTRAINT alert_errors_pkey PRIMARY KEY (code);
ALTER TABLE ONLY public.alert_figures
    ADD CONSTRAINT alert_figures_pkey PRIMARY KEY (node);
ALTER TABLE ONLY public.alert_messages
    ADD CONSTRAINT alert_messages_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (name, node, detail);
ALTER TABLE ONLY public.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.cluster
    ADD CONSTRAINT cluster_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.figures
    ADD CONSTRAINT figures_pkey PRIMARY KEY (seconds, starts_at, node);
ALTER TABLE ONLY public.identity_links
    ADD CONSTRAINT identity_links_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.segments
    ADD CONSTRAINT segments_pkey PRIMARY KEY (session_id, idx);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.stages
    ADD CONSTRAINT stages_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_pkey PRIMARY KEY (who);
ALTER TABLE ONLY public.waveforms
    ADD CONSTRAINT waveforms_pkey PRIMARY KEY (session_id);
ALTER TABLE ONLY public.write_probe
    ADD CONSTRAINT write_probe_pkey PRIMARY KEY (id);
CREATE INDEX admin_sign_ins_by_end ON public.admin_sign_ins USING btree (expires_at);
CREATE INDEX alert_messages_by_channel ON public.alert_messages USING btree (channel, id);
CREATE INDEX identity_links_by_end ON public.identity_links USING btree (expires_at);
CREATE INDEX identity_links_of_owner ON public.identity_links USING btree (owner);
CREATE INDEX segments_by_words ON public.segments USING gin (public.search_words(text));
CREATE INDEX sessions_by_end ON public.sessions USING btree (finished_at, id) WHERE (finished_at IS NOT NULL);
CREATE INDEX sessions_by_owner ON public.sessions USING btree (owner, id);
CREATE INDEX sessions_by_turn ON public.sessions USING btree (status, turn, queued_at, id);
CREATE INDEX stages_by_session ON public.stages USING btree (session_id);
CREATE TRIGGER sessions_stage AFTER UPDATE OF status, stage ON public.sessions FOR EACH ROW WHEN ((
        CASE
            WHEN (new.status = 'processing'::text) THEN new.stage
            ELSE NULL::text
        END IS DISTINCT FROM
        CASE
            WHEN (old.status = 'processing'::text) THEN old.stage
            ELSE NULL::text
        END)) EXECUTE FUNCTION public.log_stage();
CREATE TRIGGER sessions_turn AFTER UPDATE OF status ON public.sessions FOR EACH ROW WHEN (((old.status = 'queued'::text) AND (new.status = 'processing'::text) AND (new.engine <> 'external'::text))) EXECUTE FUNCTION public.note_turn();
ALTER TABLE ONLY public.segments
    ADD CONSTRAINT segments_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.stages
    ADD CONSTRAINT stages_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.waveforms
    ADD CONSTRAINT waveforms_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;
