"""`make compare`: four servers serve one small model and meet four mishaps; what their clients see becomes one table.

- `model.py`       the model, and the notes by which it can be watched from outside
- `peers/`         the model in each server, as that server's own documentation writes a stream
- `servers.py`     how each is started, asked and stopped
- `client.py`      a client down to the bytes: events, and how the connection ended
- `behaviours.py`  the mishaps: what is done, and what was measured
- `table.py`       what was measured, in words
- `page.md`        the page around the tables

Speed is another matter, and `bench/run.py`'s.
"""
