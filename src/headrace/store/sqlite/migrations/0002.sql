-- The server as a request's caller knows it: what URLs of files begin with, whenever the request runs.
ALTER TABLE requests ADD COLUMN base_url TEXT NOT NULL DEFAULT '';
