CREATE TABLE IF NOT EXISTS pictures (
    key TEXT PRIMARY KEY, digest TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS versions (
    picture TEXT NOT NULL, task TEXT NOT NULL, number INTEGER NOT NULL, author TEXT NOT NULL, kind TEXT NOT NULL,
    content TEXT NOT NULL, seconds REAL NOT NULL, base INTEGER, made TEXT NOT NULL,
    PRIMARY KEY (picture, task, number)
);
CREATE TABLE IF NOT EXISTS drafts (
    picture TEXT NOT NULL, task TEXT NOT NULL, author TEXT NOT NULL, revision INTEGER NOT NULL, base INTEGER NOT NULL,
    content TEXT NOT NULL, seconds REAL NOT NULL, made TEXT NOT NULL, tab TEXT NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (picture, task, author)
);
CREATE TABLE IF NOT EXISTS shelved (
    picture TEXT NOT NULL, task TEXT NOT NULL, author TEXT NOT NULL, revision INTEGER NOT NULL, base INTEGER NOT NULL,
    content TEXT NOT NULL, seconds REAL NOT NULL, made TEXT NOT NULL, tab TEXT NOT NULL, sequence INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS texts (
    picture TEXT NOT NULL, source TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (picture, source)
);
CREATE TABLE IF NOT EXISTS judgements (
    picture TEXT NOT NULL, author TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL, swapped INTEGER NOT NULL,
    answers TEXT NOT NULL, seconds REAL NOT NULL, made TEXT NOT NULL
);
