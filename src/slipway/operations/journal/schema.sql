-- One row for each image and classifier that was asked. Blobs are FP32, little-endian.
CREATE TABLE rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  request TEXT NOT NULL,           -- id that the gateway drew
  image INTEGER NOT NULL,          -- place in the request, from 0
  classifier TEXT NOT NULL,
  model TEXT NOT NULL,             -- the ensemble that was asked
  client_id TEXT NOT NULL,         -- id that the client gave its request
  time_s REAL NOT NULL,            -- Unix time of the request
  sampled_with REAL NOT NULL,      -- probability with which the request was chosen
  arm TEXT NOT NULL,
  bundle TEXT,
  replayed_bundle TEXT,
  status INTEGER NOT NULL,
  label TEXT,
  class_id INTEGER,
  score REAL,
  probability BLOB,
  embedding BLOB,
  brightness REAL,
  width INTEGER,
  height INTEGER,
  bytes INTEGER NOT NULL,
  format TEXT,
  sha256 TEXT,                     -- of the image; NULL for a refused one
  kept INTEGER NOT NULL,           -- 1 while the image is in images/
  parity TEXT NOT NULL,
  UNIQUE (request, image, classifier)
);
CREATE INDEX rows_time ON rows (time_s);
CREATE INDEX rows_classifier ON rows (classifier);  -- and id: the watch follows each classifier
CREATE INDEX rows_sha256 ON rows (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX rows_client_id ON rows (client_id) WHERE client_id != '';
-- Requests whose tap file is taken in, and may still be in the spool.
CREATE TABLE done (request TEXT PRIMARY KEY, at_s REAL NOT NULL) WITHOUT ROWID;
-- Images of the spool that are not to be taken in.
CREATE TABLE forgotten (request TEXT NOT NULL, image INTEGER NOT NULL, PRIMARY KEY (request, image)) WITHOUT ROWID;
CREATE TABLE counters (name TEXT NOT NULL, labels TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name, labels))
  WITHOUT ROWID;
-- Every row that a selection considered for a label, chosen or not. A row is considered once.
CREATE TABLE considered (
  row INTEGER PRIMARY KEY REFERENCES rows (id) ON DELETE CASCADE,
  selection INTEGER NOT NULL,      -- Unix time of the selection, in ms
  probability REAL NOT NULL,       -- with which the row was chosen: the accuracy estimate divides by it
  chosen INTEGER NOT NULL
);
-- Rows for which people are asked.
CREATE TABLE asked (
  row INTEGER PRIMARY KEY REFERENCES rows (id) ON DELETE CASCADE,
  reason TEXT NOT NULL,            -- chosen (by a selection) or differs (two versions answer otherwise)
  asked_s REAL NOT NULL
);
-- What people said of a row.
CREATE TABLE labels (
  row INTEGER NOT NULL REFERENCES rows (id) ON DELETE CASCADE,
  annotator TEXT NOT NULL,
  label TEXT NOT NULL,             -- a class of the bundle, or one that it does not know
  labelled_s REAL NOT NULL,
  PRIMARY KEY (row, annotator)
) WITHOUT ROWID;
-- What another bundle says of a row's image.
CREATE TABLE compared (
  row INTEGER NOT NULL REFERENCES rows (id) ON DELETE CASCADE,
  bundle TEXT NOT NULL,
  status INTEGER NOT NULL,
  label TEXT,
  class_id INTEGER,
  score REAL,
  PRIMARY KEY (row, bundle)
) WITHOUT ROWID;
