-- Until now: the addresses of other web servers' installers, and what they said of themselves.
DROP TABLE images;

CREATE TABLE images (                               -- installers that lie under the state directory
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT NOT NULL UNIQUE,         -- of its directory, e.g. 'proxmox-ve_9.2-1'
    product           TEXT NOT NULL,                -- as the ISO says: 'pve'
    release           TEXT NOT NULL,                -- '9.2-1'
    sha256            TEXT NOT NULL CHECK (length(sha256) = 64),    -- of the ISO as it was imported
    size              INTEGER NOT NULL,             -- bytes, likewise
    mode_offset       INTEGER NOT NULL,             -- where auto-installer-mode.toml lies in the prepared ISO
    prepared_sha256   TEXT NOT NULL CHECK (length(prepared_sha256) = 64),   -- of the ISO as it is stored
    imported_at       TEXT NOT NULL,
    is_default        INTEGER NOT NULL DEFAULT 0 CHECK (is_default IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX one_default_image ON images (is_default) WHERE is_default = 1;

ALTER TABLE hosts ADD COLUMN memory_mib INTEGER;
-- No foreign key: what an operation installed from may be removed later.
ALTER TABLE operations ADD COLUMN image_id INTEGER;
