"""``svad-ray serve``: the HTTP service on this machine or on a Ray cluster, and its tokens."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from svad_ray.commands.batch import absolute
from svad_ray.errors import InputError

if TYPE_CHECKING:
    from svad_ray.service.config import ServiceConfig

FIRST = "owner"
TOKENS = "~/svad-ray-tokens.json"
_out, _err = Console(), Console(stderr=True)
app = typer.Typer(invoke_without_command=True, help="Serve avatars, restore, animate and render over HTTP.")
token_app = typer.Typer(no_args_is_help=True, help="Who may call: tokens, kept as salted hashes.")
app.add_typer(token_app, name="token")

TokenFile = Annotated[Path, typer.Option("--token-file", help="Names and hashes of tokens.")]


@app.callback()
def serve(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="A file of serve_configs/; default: as embedded.yaml.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; the default is this machine alone.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: 8000.")] = None,
    store: Annotated[str | None, typer.Option(help="Where everything is kept: a folder or an fsspec address.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="Names and hashes of tokens.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster (auto, host:port); default: one is started here.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch model files.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Without Ray: worker processes of this machine.")] = False,
) -> None:
    """Serve until Ctrl-C. The first start makes a token and prints it once."""
    if context.invoked_subcommand is not None:
        return
    from svad_ray.cluster.serve_run import deployed, read_plan

    service: dict[str, Any] = {"store": absolute(store) if store else None, "host": host, "port": port}
    service |= {"tokens_file": str(token_file.absolute()) if token_file else None}
    given = {name: value for name, value in service.items() if value is not None}
    plan = read_plan(config, given, {"offline": True} if offline else {})
    token = first_token(plan.args.service)
    ended = _on_signals()
    if local:
        _serve_here(plan, token, ended)
        return
    _err.print("Starting (loading the models takes a minute or two)...")
    with deployed(plan, address=address) as url:
        _tell(url, plan.args.service, token)
        ended.wait()
        _err.print("Ending: requests are finished, unfinished avatars go on at the next start.")


def first_token(service: ServiceConfig) -> str:
    """A token for the first start; "" when there are some, or none are needed."""
    from svad_ray.service.tokens import add_token, read_tokens

    if not service.require_tokens or read_tokens(service.tokens_file):
        return ""
    return add_token(service.tokens_file, FIRST)


def _tell(url: str, service: ServiceConfig, token: str) -> None:
    if token:
        _out.print(f"token of '{FIRST}', shown only this once: [bold]{escape(token)}[/]", soft_wrap=True)
    elif not service.require_tokens:
        _out.print("[yellow]note[/] no tokens: whoever reaches the port may do everything")
    _out.print(f"listening on [bold]{escape(url)}[/]; store {escape(service.store)}; Ctrl-C ends it", soft_wrap=True)


def _on_signals() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; the second one ends the process the hard way."""
    ended = threading.Event()

    def end(number: int, frame: Any) -> None:
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return ended


def _serve_here(plan: Any, token: str, ended: threading.Event) -> None:
    """The same service with worker processes instead of Ray."""
    import uvicorn

    from svad_ray.service.app import build_app
    from svad_ray.service.book import AvatarBook
    from svad_ray.service.local_engine import LocalEngine

    args = plan.args
    book = AvatarBook(args.service.store)
    engine = LocalEngine(book, args.settings, kit=args.kit, exports=args.service.exports)
    application = build_app(args.service, book, engine)
    options = uvicorn.Config(
        application, host=plan.http["host"], port=plan.http["port"], log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(options)
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while serving.is_alive() and not server.started:
        serving.join(0.05)
    if not server.started:
        raise InputError(f"{plan.url} cannot be listened on", remedy="choose another with --port")
    _tell(plan.url, args.service, token)
    while serving.is_alive() and not ended.wait(0.5):
        continue
    server.should_exit = True
    serving.join()


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="Whose it is; avatars belong to names.")],
    token_file: TokenFile = Path(TOKENS),
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="A limit of its own.")] = None,
    open_avatars: Annotated[int | None, typer.Option(min=1, help="Unfinished avatars at once.")] = None,
) -> None:
    """Make a token; it is printed once and cannot be had again."""
    from svad_ray.service.tokens import add_token

    typer.echo(add_token(token_file.expanduser(), name, requests_per_minute=requests_per_minute, open_avatars=open_avatars))


@token_app.command("list")
def token_list(token_file: TokenFile = Path(TOKENS)) -> None:
    """Names and limits; the tokens themselves are not kept."""
    from datetime import datetime

    from svad_ray.service.tokens import read_tokens

    table = Table("name", "id", "made", "requests a minute", "open avatars", box=None)
    for entry in read_tokens(token_file.expanduser()):
        limits = (str(limit or "the service's") for limit in (entry.requests_per_minute, entry.open_avatars))
        table.add_row(entry.name, entry.id, f"{datetime.fromtimestamp(entry.created_at):%Y-%m-%d %H:%M}", *limits)
    _out.print(table)


@token_app.command("remove")
def token_remove(name: Annotated[str, typer.Argument(help="Whose tokens.")], token_file: TokenFile = Path(TOKENS)) -> None:
    """Forget every token of a name; they stop working at once."""
    from svad_ray.service.tokens import remove_tokens

    count = remove_tokens(token_file.expanduser(), name)
    if not count:
        raise InputError(f"'{name}' has no token in {token_file}", remedy="see `svad-ray serve token list`")
    _out.print(f"{count} removed")
