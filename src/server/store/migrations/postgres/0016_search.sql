-- The words of a text: what letters and digits make of it, in any case. PostgreSQL's own parser would take an address or two
-- words with a hyphen for one. A text beyond 200,000 characters would not fit into a tsvector.
CREATE FUNCTION search_words(text TEXT) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_tsvector(
        'pg_catalog.simple',
        regexp_replace(left(text, 200000), '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007f]+', ' ', 'g'))
$$;

-- An index and not a column, so that nodes of earlier releases keep it without knowing of it.
CREATE INDEX segments_by_words ON segments USING GIN (search_words(text));
