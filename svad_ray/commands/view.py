"""``svad-ray view``: the avatar on a page of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from svad_ray.commands.export import AvatarFolder, Body
from svad_ray.config import Settings

PORT = 8080
_out = Console()


def view(
    avatar: AvatarFolder,
    motion: Annotated[list[str] | None, typer.Option(help="Clips besides the built-in ones, as animate's; repeatable. The first one plays.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The next free one is taken where it is in use; 0 = any.")] = PORT,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    body: Body = None,
) -> None:
    """The avatar in the browser: turn, play, pose. Ctrl-C ends it."""
    from svad_ray.store import load_avatar

    loaded = load_avatar(avatar)
    from svad_ray.body import load_body
    from svad_ray.local import prepare
    from svad_ray.viewer.page import Page
    from svad_ray.viewer.puppet import Puppet

    prepare(Settings())
    puppet = Puppet(loaded, load_body(body))
    first = [puppet.add(name) for name in motion or ["walk"]][0]
    page = Page(puppet, clip=first, port=port)
    _out.print(f"[bold]{escape(page.url)}[/] shows the avatar; Ctrl-C ends it", soft_wrap=True)
    if open_browser:
        import webbrowser

        webbrowser.open(page.url)
    try:
        page.run()
    except KeyboardInterrupt:
        _out.print("Ended.")
    finally:
        page.close()
