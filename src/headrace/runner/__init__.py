"""The child process that runs one app: `python -m headrace.runner --fd N --target SPEC`.

    __main__  the process: signals, the death signal, the loop
    load      from a target to apps; every way this fails is a FileFault
    link      the socket: frames of one loop turn in one write
    rotation  large messages in pieces that take turns, within what the node holds
    serve     what each frame does: setup, check, start, cancel, leave
    inputs    a request's body, validated; what is wrong with it, in fal's shape
    call      one attempt while it runs: its credit, its items, its one ending
    invoke    the four kinds of endpoint, run and always closed
    threads   threads for calls, kept for the next ones; hooks in a thread of their own
    interrupt the last word to code that neither yields nor emits
    inherit   carries the current call into threads started below it
    output    what is printed, marked with the request it belongs to
    encode    items to ASCII JSON
    blame     an author's exceptions to errors on the wire; tracebacks to the log

User code lives here and nowhere else. The standard output is the author's, with marks between the lines that say
whose they are (`core.marks`): the protocol has its own socket.
"""
