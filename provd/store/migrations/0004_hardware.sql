CREATE TABLE hardware (                             -- what a machine told of itself when it was installed last
    host_id           INTEGER PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    reported_at       TEXT NOT NULL,
    report            TEXT NOT NULL CHECK (length(report) <= 131072)
) STRICT;
