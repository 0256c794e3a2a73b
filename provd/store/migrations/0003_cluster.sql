-- Operations of other kinds than a rebuild. SQLite cannot change a CHECK: the table is made anew, and the
-- locks, which are derived from it, with it.
DROP TABLE locks;

CREATE TABLE operations_new (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    host_id           INTEGER REFERENCES hosts (id) ON DELETE SET NULL,
    hostname          TEXT NOT NULL,
    kind              TEXT NOT NULL CHECK (kind IN ('rebuild', 'rejoin', 'decommission')),
    started_by        TEXT NOT NULL,
    started_at        TEXT NOT NULL,
    outcome           TEXT CHECK (outcome IN ('done', 'failed', 'cancelled')),    -- NULL: active
    detail            TEXT NOT NULL DEFAULT '',
    finished_at       TEXT CHECK ((finished_at IS NULL) = (outcome IS NULL)),
    -- What exists only while the operation does; see operation_ends.
    public_key        TEXT,
    sealed_key        BLOB,
    token_hash        BLOB,
    sealed_answer     BLOB,
    answered_at       TEXT,
    answered_to       TEXT,
    answers_served    INTEGER NOT NULL DEFAULT 0,
    management_mac    TEXT,                         -- the NIC that the answer asked to be managed by
    image_id          INTEGER                       -- what it installs, which may be removed later
) STRICT;

INSERT INTO operations_new
SELECT id, host_id, hostname, kind, started_by, started_at, outcome, detail, finished_at, public_key,
       sealed_key, token_hash, sealed_answer, answered_at, answered_to, answers_served, management_mac, image_id
  FROM operations;

DROP TABLE operations;
ALTER TABLE operations_new RENAME TO operations;

CREATE UNIQUE INDEX one_active_operation_per_host ON operations (host_id) WHERE outcome IS NULL;
CREATE INDEX operations_by_host ON operations (host_id, id);

CREATE TABLE locks (
    name              TEXT PRIMARY KEY,             -- 'host/7'; 'cluster': whose turn it is to change members
    operation_id      INTEGER NOT NULL REFERENCES operations (id),
    taken_at          TEXT NOT NULL
) STRICT;

INSERT INTO locks (name, operation_id, taken_at)
SELECT 'host/' || host_id, id, started_at FROM operations WHERE outcome IS NULL;

CREATE TRIGGER operation_begins AFTER INSERT ON operations WHEN NEW.outcome IS NULL
BEGIN
    INSERT INTO locks (name, operation_id, taken_at)
    VALUES ('host/' || NEW.host_id, NEW.id, NEW.started_at);
END;

CREATE TRIGGER operation_ends AFTER UPDATE OF outcome ON operations WHEN NEW.outcome IS NOT NULL
BEGIN
    DELETE FROM locks WHERE operation_id = NEW.id;
    UPDATE operations
       SET sealed_key = NULL, token_hash = NULL, sealed_answer = NULL, answered_to = NULL
     WHERE id = NEW.id;
END;

CREATE TABLE departures (                           -- members that operations take out of their cluster
    operation_id      INTEGER PRIMARY KEY REFERENCES operations (id) ON DELETE CASCADE,
    node              TEXT NOT NULL,
    nodeid            INTEGER NOT NULL,             -- to be given back to it
    votes             INTEGER NOT NULL,
    drain             INTEGER NOT NULL CHECK (drain IN (0, 1)),    -- into HA maintenance first
    keep_entry        INTEGER NOT NULL CHECK (keep_entry IN (0, 1)),   -- pvecm add --force, no delnode
    -- asked: works as it did. released: may go away at any moment. left: struck out of the cluster.
    stage             TEXT NOT NULL CHECK (stage IN ('asked', 'released', 'left'))
) STRICT;

CREATE TABLE retries (                              -- hosts whose failed join can be tried again
    host_id           INTEGER PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    operation_id      INTEGER NOT NULL,             -- whose key still opens the host
    public_key        TEXT NOT NULL,
    sealed_key        BLOB NOT NULL,
    expires_at        TEXT NOT NULL                 -- the host itself forgets the key then
) STRICT;

CREATE TABLE cluster_members (                      -- whom to ask when the configured one is away
    name              TEXT PRIMARY KEY COLLATE NOCASE,
    address           TEXT NOT NULL,
    fingerprint       TEXT NOT NULL,                -- of the certificate that its API served
    ssh_host_keys     TEXT NOT NULL DEFAULT '[]',   -- pinned at the first contact
    seen_at           TEXT NOT NULL
) STRICT;
