"""``svad-ray view``: the avatar on a page of this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from svad_ray.commands.export import AvatarFolder, Body
from svad_ray.config import Settings

_out = Console()


def view(
    avatar: AvatarFolder,
    motion: Annotated[list[str] | None, typer.Option(help="Clips besides the built-in ones, as animate's; repeatable. The first one plays.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    body: Body = None,
) -> None:
    """The avatar in the browser: turn, play, pose. Needs no network; Ctrl-C ends it."""
    from svad_ray.store import load_avatar

    loaded = load_avatar(avatar)
    from svad_ray.body import load_body
    from svad_ray.local import prepare
    from svad_ray.viewer.scene import Scene
    from svad_ray.viewer.server import Viewer

    prepare(Settings())
    folder = avatar.resolve()
    viewer = Viewer(
        Scene(loaded, load_body(body), motions=motion or (), name=folder.parent.name if folder.name == "avatar" else folder.name), port=port
    )
    _out.print(f"[bold]{escape(viewer.url)}[/] shows the avatar; Ctrl-C ends it", soft_wrap=True)
    if open_browser:
        import webbrowser

        webbrowser.open(viewer.url)
    try:
        viewer.run()
    except KeyboardInterrupt:
        _out.print("Ended.")
    finally:
        viewer.close()
