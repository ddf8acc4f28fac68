"""The folder of files that models make and callers send: DATA_DIR/files, as its node and its runners write it.

    folder   keep, find, open, remove; what both sides share
    sweep    what is too old, too much or half written goes; the node's alone

A runner is a child process of the same user on the same disk, so it keeps a preview by itself: a way through the
node would be paid once a step. What it writes is as untrusted as what it says: all is read as a stranger's.

Private. Knows `core` and the disk; it does not know HTTP, an app, or who calls. Everything here blocks.
"""
