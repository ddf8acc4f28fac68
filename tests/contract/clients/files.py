"""Uploads by fal's Python client, told as a line of JSON each; stdin has the calls, from test_official_uploads.py.

A call has `name`, `kind` (upload, upload_file, upload_image, maybe with _async), `arguments`, and maybe `options`,
`expires_in` and `multipart` ([the size from which a file goes in parts, the size of a part]). Bytes are in base64.
"""

import asyncio
import base64
import inspect
import json
import logging
import os
import sys

import fal_client
import fal_client.client

# No variable of fal's leads files elsewhere: these two names do, as docs/how-to/files.md says.
fal_client.client.REST_URL = fal_client.client.CDN_URL = f"https://{os.environ['FAL_RUN_HOST']}"
logging.disable()  # it warns where it falls back


class Painted:
    def save(self, file, format):
        file.write(f"an image as {format}".encode())


def upload(call):
    fal_client.client.MULTIPART_THRESHOLD, fal_client.client.MULTIPART_CHUNK_SIZE = call.get(
        "multipart", (10**8, 10**7)
    )
    options = call.get("options", {})
    if "expires_in" in call:
        options["lifecycle"] = fal_client.StorageSettings(expires_in=call["expires_in"])
    arguments = call["arguments"]
    if call["kind"].startswith("upload_image"):
        arguments = [Painted(), *arguments]
    elif not call["kind"].startswith("upload_file"):
        arguments = [base64.b64decode(arguments[0]), *arguments[1:]]
    return getattr(fal_client, call["kind"])(*arguments, **options)


runner = asyncio.Runner()  # one for all of them: fal's client keeps its connections
for call in json.load(sys.stdin):
    told = {"name": call["name"]}
    try:
        url = upload(call)
        told["url"] = runner.run(url) if inspect.iscoroutine(url) else url
    except Exception as error:
        told["error"] = {"status": getattr(error, "status_code", None), "message": str(error)}
    print(json.dumps(told), flush=True)
