"""The command line: `headrace serve`, `stream`, `run`, `apps`, `upload`, `submit`, `status`, `logs`, `result`,
`cancel`, `attach`, `conformance`, `keys`, `models`, `webhooks`, `page`, `demo`, `env`, `doctor`.

    serve        start a node, or check the files it would serve
    client       ask a running server: stream, run, apps
    upload       send it files
    queue        ask its queue: submit, status, logs, result, cancel; attach, which watches any request
    conformance  check how a server streams, ours or another's
    keys         create, list and revoke keys
    webhooks     those that were given up
    page         a link that opens a server's page
    models       the models that Headrace can fetch; `weights` does the fetching
    demo         a real model in your terminal, and the lines to call it yourself
    env          lines for a shell that lead fal's own clients here; `redirect.mjs` does it in Node
    doctor       what this machine lacks, and the line that mends it
    screen       how items look on a terminal and in a pipe
    failures     what a command says when it cannot go on, and its exit status

Every module is light to import; a command imports what it runs when it runs. Only `headrace.node`,
`headrace.client` and `headrace.config` are called from here.
"""

from __future__ import annotations

import typer

from headrace.cli import client, conformance, demo, doctor, env, keys, models, page, queue, serve, upload, webhooks
from headrace.cli.help import examples

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help is up in a third of the time
    pretty_exceptions_enable=False,
    epilog=examples(
        "headrace demo", "headrace serve app.py", "headrace stream owner/alias prompt='Why is the sky blue?'"
    ),
)


@app.callback()
def _root() -> None:
    """Run your models on your machine and stream what they make, as they make it."""


app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("stream", epilog=client.STREAM_EXAMPLES)(client.stream)
app.command("run", epilog=client.RUN_EXAMPLES)(client.run)
app.command("apps", epilog=client.APPS_EXAMPLES)(client.apps)
app.command("upload", epilog=upload.EXAMPLES)(upload.upload)
app.command("submit", epilog=queue.SUBMIT_EXAMPLES)(queue.submit)
app.command("status", epilog=queue.STATUS_EXAMPLES)(queue.status)
app.command("logs", epilog=queue.LOGS_EXAMPLES)(queue.logs)
app.command("result", epilog=queue.RESULT_EXAMPLES)(queue.result)
app.command("cancel", epilog=queue.CANCEL_EXAMPLES)(queue.cancel)
app.command("attach", epilog=queue.ATTACH_EXAMPLES)(queue.attach)
app.command("page", epilog=page.EXAMPLES)(page.page)
app.command("conformance", epilog=conformance.EXAMPLES)(conformance.conformance)
app.command("env", epilog=env.EXAMPLES)(env.env)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")


def main() -> None:
    """Run the command line. Exits with the command's status; 2 for a command that cannot be read."""
    app()
