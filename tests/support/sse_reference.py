"""An event stream decoder that is obviously right: the WHATWG text, sentence by sentence, on the whole input.

Nothing of it is shared with `headrace.core.sse`: not the line splitting, not the UTF-8. It is slow on purpose.
The quoted lines are from the HTML standard (9.2.5, 9.2.6) and the Encoding standard ("UTF-8 decoder").
"""

from __future__ import annotations


def utf8_decode(data: bytes) -> str:
    """The Encoding standard's "UTF-8 decode": strip a BOM, then run the decoder with replacement errors."""
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    out: list[str] = []
    code_point = seen = needed = 0
    lower, upper = 0x80, 0xBF
    i = 0
    while i <= len(data):
        if i == len(data):
            if needed:  # "If byte is end-of-queue and UTF-8 bytes needed is not 0 … return error."
                out.append("\ufffd")
            break
        byte = data[i]
        i += 1
        if needed == 0:
            if byte <= 0x7F:
                out.append(chr(byte))
            elif 0xC2 <= byte <= 0xDF:
                needed, code_point = 1, byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                if byte == 0xE0:
                    lower = 0xA0
                if byte == 0xED:
                    upper = 0x9F
                needed, code_point = 2, byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                if byte == 0xF0:
                    lower = 0x90
                if byte == 0xF4:
                    upper = 0x8F
                needed, code_point = 3, byte & 0x7
            else:
                out.append("\ufffd")
            continue
        if not lower <= byte <= upper:
            # "… set all to their defaults, restore byte to ioQueue, and return error."
            code_point = seen = needed = 0
            lower, upper = 0x80, 0xBF
            i -= 1
            out.append("\ufffd")
            continue
        lower, upper = 0x80, 0xBF
        code_point = (code_point << 6) | (byte & 0x3F)
        seen += 1
        if seen == needed:
            out.append(chr(code_point))
            code_point = seen = needed = 0
    return "".join(out)


def reference(data: bytes, last_event_id: str = "") -> tuple[list[tuple[str, str, str]], str, int | None]:
    """Return (events as (type, data, id), the last event id, the reconnection time) of a whole stream."""
    text = utf8_decode(data)
    events: list[tuple[str, str, str]] = []
    data_buffer = event_type_buffer = ""
    last_event_id_buffer = last_event_id
    retry_ms = None
    i = 0
    while i < len(text):
        # "The stream must then be parsed by reading everything line by line, with a CRLF pair, a single LF not
        # preceded by a CR, and a single CR not followed by a LF being the ways in which a line can end."
        line = ""
        ended = False
        while i < len(text):
            character = text[i]
            i += 1
            if character == "\r":
                if i < len(text) and text[i] == "\n":
                    i += 1
                ended = True
                break
            if character == "\n":
                ended = True
                break
            line += character
        if not ended:
            break  # "Once the end of the file is reached, any pending data must be discarded."
        if line == "":  # "If the line is empty (a blank line): Dispatch the event."
            last_event_id = last_event_id_buffer
            if data_buffer == "":
                event_type_buffer = ""
                continue
            if data_buffer.endswith("\n"):
                data_buffer = data_buffer[:-1]
            events.append((event_type_buffer or "message", data_buffer, last_event_id))
            data_buffer = event_type_buffer = ""
            continue
        if line[0] == ":":  # "If the line starts with a U+003A COLON character (:): Ignore the line."
            continue
        if ":" in line:
            colon = line.index(":")
            field, value = line[:colon], line[colon + 1 :]
            if value[:1] == " ":
                value = value[1:]
        else:
            field, value = line, ""
        if field == "event":
            event_type_buffer = value
        elif field == "data":
            data_buffer += value + "\n"
        elif field == "id":
            if "\0" not in value:
                last_event_id_buffer = value
        elif field == "retry" and value != "" and all(digit in "0123456789" for digit in value):
            retry_ms = int(value)
    return events, last_event_id, retry_ms
