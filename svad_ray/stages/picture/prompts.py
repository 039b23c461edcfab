"""Prompts: checked, and framed so that the picture shows what an avatar needs."""

from __future__ import annotations

from svad_ray.errors import InputError

MAX_PROMPT = 2000  # characters; the encoders read 512 tokens
_DRAW = (
    "full-body photograph of {prompt}, one person alone, standing upright, facing the camera, arms slightly away from the body, "
    "head and feet inside the frame with space on every side, plain light background, even light"
)
_EDIT = "{prompt}. Keep the same person, pose and framing: one person alone, the whole body from head to feet, plain background"


def checked(prompt: str) -> str:
    """The prompt on one line.

    Raises:
        InputError: It is empty, or too long to be read whole.
    """
    text = " ".join(prompt.split())
    if not any(char.isalnum() for char in text):
        raise InputError("the prompt is empty", expected="a person in words", remedy='for example --prompt "a young woman in a red coat"')
    if len(text) > MAX_PROMPT:
        raise InputError(
            f"the prompt has {len(text)} characters", expected=f"at most {MAX_PROMPT}", remedy="say it shorter: models read about 400 words of it"
        )
    return text


def framed(prompt: str, *, edit: bool) -> str:
    """What the model is told: the prompt, and how the person has to be seen."""
    return (_EDIT if edit else _DRAW).format(prompt=checked(prompt).rstrip("."))
