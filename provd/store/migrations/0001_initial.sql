-- Times are UTC in ISO 8601 with milliseconds, so that they sort as text and read well in a shell.

CREATE TABLE hosts (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    hostname          TEXT NOT NULL UNIQUE COLLATE NOCASE,
    mac               TEXT NOT NULL UNIQUE CHECK (mac = lower(mac) AND length(mac) = 17),
    server_type       TEXT NOT NULL,
    options           TEXT NOT NULL DEFAULT '{}',
    state             TEXT NOT NULL CHECK (state IN ('registered', 'pxe_ready', 'pxe_booted', 'installing',
                                                     'installed', 'first_boot', 'joining', 'ready', 'failed')),
    state_since       TEXT NOT NULL,
    registered_at     TEXT NOT NULL,
    ip                TEXT,
    hardware_id       TEXT,
    host_keys         TEXT NOT NULL DEFAULT '[]'    -- OpenSSH public host keys of the present installation
) STRICT;

CREATE TABLE operations (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    host_id           INTEGER REFERENCES hosts (id) ON DELETE SET NULL,
    hostname          TEXT NOT NULL,
    kind              TEXT NOT NULL CHECK (kind IN ('rebuild')),
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
    management_mac    TEXT                          -- the NIC that the answer asked to be managed by
) STRICT;

CREATE UNIQUE INDEX one_active_operation_per_host ON operations (host_id) WHERE outcome IS NULL;
CREATE INDEX operations_by_host ON operations (host_id, id);

CREATE TABLE locks (
    name              TEXT PRIMARY KEY,             -- 'host/7'
    operation_id      INTEGER NOT NULL REFERENCES operations (id),
    taken_at          TEXT NOT NULL
) STRICT;

-- An operation and its lock begin and end in the same statements: nobody can forget to release one,
-- and nobody can keep the secrets of an operation that is over.
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

CREATE TABLE activity (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,    -- the SSE event id
    at                TEXT NOT NULL,
    event             TEXT NOT NULL,
    level             TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message           TEXT NOT NULL,
    host_id           INTEGER,                      -- no foreign key: history outlives what it tells of
    hostname          TEXT NOT NULL DEFAULT '',
    operation_id      INTEGER,
    before            TEXT,
    after             TEXT
) STRICT;

CREATE INDEX activity_by_operation ON activity (operation_id, id);
CREATE INDEX activity_by_host ON activity (host_id, id);

CREATE TABLE sightings (
    mac               TEXT PRIMARY KEY,
    address           TEXT NOT NULL,
    via               TEXT NOT NULL,
    first_seen        TEXT NOT NULL,
    last_seen         TEXT NOT NULL,
    times             INTEGER NOT NULL
) STRICT;

CREATE TABLE images (
    url               TEXT PRIMARY KEY,             -- where machines were sent for kernel, initrd and ISO
    product           TEXT,                         -- what the installer inside said of itself
    release           TEXT,
    first_offered     TEXT NOT NULL,
    last_offered      TEXT NOT NULL
) STRICT;

CREATE TABLE registrations (                        -- the outbox to the inventory
    host_id           INTEGER PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    hardware_id       TEXT NOT NULL,
    hostname          TEXT NOT NULL,
    ip                TEXT NOT NULL,
    mac               TEXT NOT NULL,
    server_type_id    TEXT NOT NULL,
    operation_id      INTEGER,
    attempts          INTEGER NOT NULL DEFAULT 0,
    next_try_at       TEXT NOT NULL,
    last_error        TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE tokens (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT NOT NULL UNIQUE,
    hash              BLOB NOT NULL UNIQUE,
    created_at        TEXT NOT NULL,
    last_used_at      TEXT,
    revoked_at        TEXT
) STRICT;

CREATE TABLE sign_in_links (
    hash              BLOB PRIMARY KEY,
    created_at        TEXT NOT NULL,
    expires_at        TEXT NOT NULL,
    used_at           TEXT
) STRICT;

CREATE TABLE sessions (
    hash              BLOB PRIMARY KEY,
    created_at        TEXT NOT NULL,
    last_seen_at      TEXT NOT NULL
) STRICT;
