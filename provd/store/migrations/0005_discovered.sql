ALTER TABLE sightings ADD COLUMN firmware TEXT NOT NULL DEFAULT '';     -- 'UEFI x64', as far as it was heard
ALTER TABLE sightings ADD COLUMN ignored INTEGER NOT NULL DEFAULT 0 CHECK (ignored IN (0, 1));
