"""The page: viser's scene and controls over a `Puppet`. The controls' values are the state; the loop looks at them and draws what changed."""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svad_ray.errors import BackendUnavailable, SvadError
from svad_ray.motion.placing import FOCAL
from svad_ray.viewer.puppet import BENDS, EXPRESSION, Puppet

if TYPE_CHECKING:
    import viser

HOST = "127.0.0.1"
_TICK_S, _IDLE_S = 1 / 60, 0.1  # between two looks at the controls, with and without somebody who watches
_UNIT = 0.01  # metres per unit of the splats: viser keeps variances as float16, which would round millimetres away
_AS_SEEN, _CONFIDENCE = "as seen", "confidence"
_BONE, _WIRE = (40, 110, 220), (90, 90, 90)


@dataclass(frozen=True)
class State:
    """Everything that a drawn frame depends on."""

    clip: str
    frame: int
    bent: tuple[tuple[str, float], ...]
    colors: str
    avatar: bool
    bones: bool
    wire: bool


class Page:
    """A page on this machine; ``run`` keeps it alive.

    Args:
        puppet: What is shown.
        clip: The clip that is chosen at first.
        port: Where to listen; the next free one is taken where it is in use, 0 = any.
        title: Shown above the controls.

    Raises:
        BackendUnavailable: viser is not installed, or no port is free.
    """

    def __init__(self, puppet: Puppet, *, clip: str, port: int = 8080, title: str = "svad-ray") -> None:
        viser = _viser()
        self.puppet = puppet
        try:
            with redirect_stdout(StringIO()):  # the command says where the page is
                self.server: viser.ViserServer = viser.ViserServer(host=HOST, port=port, label=title, verbose=False)
        except (OSError, RuntimeError) as error:
            raise BackendUnavailable(f"no page on port {port}: {error}", expected="a free port", remedy="svad-ray view --port 0") from error
        self.drawn = 0  # frames sent so far
        self._last: State | None = None
        self._anchor = (time.monotonic(), 0)  # when the clip was at which frame
        self._controls(clip)
        self._scene(clip)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server.get_port()}"

    def run(self) -> None:
        """Play and answer the controls until an exception (Ctrl-C) ends it."""
        while True:
            began = time.monotonic()
            watched = bool(self.server.get_clients())
            if watched:
                self.step(began)
            time.sleep(max(0.001, (_TICK_S if watched else _IDLE_S) - (time.monotonic() - began)))

    def step(self, now: float) -> bool:
        """Draw the state of the controls at ``now`` (seconds), if it is not what is shown. Returns whether it drew."""
        state = self._state(now)
        if state == self._last:
            return False
        self._draw(state)
        self._last, self.drawn = state, self.drawn + 1
        return True

    def close(self) -> None:
        """End the server."""
        with redirect_stdout(StringIO()):
            self.server.stop()

    def _controls(self, clip: str) -> None:
        gui = self.server.gui
        self.clip = gui.add_dropdown("Clip", options=self.puppet.names, initial_value=clip)
        self.play = gui.add_checkbox("Play", initial_value=True)
        self.frame = gui.add_slider("Frame", min=0, max=len(self.puppet.clip(clip)) - 1, step=1, initial_value=0)
        self.motion = gui.add_upload_button("Own motion (.npz)", mime_type=".npz")
        self.motion.on_upload(self._uploaded)
        with gui.add_folder("Show"):
            self.avatar = gui.add_checkbox("Avatar", initial_value=True)
            self.bones = gui.add_checkbox("Joints", initial_value=False)
            self.wire = gui.add_checkbox("Wireframe", initial_value=False)
            options = (_AS_SEEN, _CONFIDENCE) if self.puppet.has_confidence else (_AS_SEEN,)
            self.colors = gui.add_dropdown("Colours", options=options, initial_value=_AS_SEEN, visible=self.puppet.has_confidence)
        with gui.add_folder("Pose"):
            self.bent = {name: gui.add_slider(name, min=b.low, max=b.high, step=1.0, initial_value=0.0) for name, b in BENDS.items()}
            self.bent[EXPRESSION] = gui.add_slider(EXPRESSION, min=-3.0, max=3.0, step=0.1, initial_value=0.0)
            gui.add_button("As in the clip").on_click(self._straighten)

    def _scene(self, clip: str) -> None:
        """Up is y, the camera stands where the clip's own does, and a grid is the floor."""
        scene, track = self.server.scene, self.puppet.clip(clip)
        scene.set_up_direction("+y")
        scene.add_grid("/floor", width=4.0, height=4.0, plane="xz", cell_color=(225, 225, 225), section_color=(205, 205, 205))
        rotation, shift = track.viewmats[0, :3, :3], track.viewmats[0, :3, 3]
        eye = -rotation.T @ shift
        pelvis = self.puppet.posable.joints(track, slice(0, 1))[0, 0]
        view = self.server.initial_camera
        view.position, view.look_at = tuple(eye), tuple(eye + rotation[2] * ((pelvis - eye) @ rotation[2]))
        view.fov = 2 * math.atan(0.5 / FOCAL)
        self._splats: Any = None
        self._lines: Any = None
        self._mesh: Any = None

    def _state(self, now: float) -> State:
        clip = self.clip.value
        length = len(self.puppet.clip(clip))
        if self._last is None or clip != self._last.clip:
            self.frame.value = 0
            self.frame.max = max(1, length - 1)
            self._anchor = (now, 0)
        elif self.frame.value != self._last.frame or not self.play.value:
            self._anchor = (now, int(self.frame.value))  # moved by hand, or standing: play goes on from there
        frame = int(self._anchor[1] + (now - self._anchor[0]) * self.puppet.clip(clip).fps) % length
        if frame != self.frame.value:
            self.frame.value = frame
        bent = tuple((name, float(slider.value)) for name, slider in self.bent.items())
        return State(clip, frame, bent, self.colors.value, self.avatar.value, self.bones.value, self.wire.value)

    def _draw(self, state: State) -> None:
        track = self.puppet.at(state.clip, state.frame, dict(state.bent))
        with self.server.atomic():
            self._draw_splats(track, state)
            self._draw_bones(track, state)
            self._draw_wire(track, state)

    def _draw_splats(self, track: Any, state: State) -> None:
        if state.avatar:
            s = self.puppet.splats(track, sure=state.colors == _CONFIDENCE)
            centers, covariances = s.centers / np.float32(_UNIT), s.covariances / np.float32(_UNIT**2)
            if self._splats is None:
                self._splats = self.server.scene.add_gaussian_splats("/avatar", centers, covariances, s.colors, s.opacities, scale=_UNIT)
            else:
                self._splats.set_gaussians(centers, covariances, s.colors, s.opacities)
        if self._splats is not None:
            self._splats.visible = state.avatar

    def _draw_bones(self, track: Any, state: State) -> None:
        if state.bones:
            bones = self.puppet.bones(track)
            if self._lines is None:
                self._lines = self.server.scene.add_line_segments("/joints", bones, _BONE, thickness=0.008)
            else:
                self._lines.points = bones
        if self._lines is not None:
            self._lines.visible = state.bones

    def _draw_wire(self, track: Any, state: State) -> None:
        if state.wire:
            vertices = self.puppet.vertices(track)
            if self._mesh is None:
                self._mesh = self.server.scene.add_mesh_simple("/surface", vertices, self.puppet.surface.faces, color=_WIRE, wireframe=True)
            else:
                self._mesh.vertices = vertices
        if self._mesh is not None:
            self._mesh.visible = state.wire

    def _straighten(self, event: Any) -> None:
        for slider in self.bent.values():
            slider.value = 0.0

    def _uploaded(self, event: Any) -> None:
        """A motion from the visitor's disk becomes a clip, or a message says why not."""
        file = self.motion.value
        try:
            with tempfile.TemporaryDirectory(prefix="svad-ray-") as folder:
                path = Path(folder, "motion.npz")
                path.write_bytes(file.content)
                name = self.puppet.add(str(path), name=Path(file.name).stem or "motion")
        except SvadError as error:
            event.client.add_notification(f"{file.name} cannot be played", str(error).replace(str(path), file.name), color="red")
            return
        self.clip.options = self.puppet.names
        self.clip.value = name


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise BackendUnavailable(
            "viser, which shows the page, is not installed", expected="the extra 'viewer'", remedy='pip install "svad-ray[viewer]"'
        ) from error
    return viser
