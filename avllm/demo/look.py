"""How the page looks and what its server answers: theme, style, headers."""

import re
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avllm.demo import panels

_SANS = ("Inter", "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
# Gradio's page runs scripts of its own inline. What this forbids is any other host, frames and plug-ins.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
_SCHEME = re.compile(r"/*[A-Za-z][A-Za-z0-9+.-]+:")  # one letter is a drive of Windows
_NOT_OFFERED = ("proxy", "process_recording", "component_server")


class Guard:
    """Adds safe headers, and refuses the addresses under which Gradio would fetch from other hosts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _is_refused(scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not offered here\n"})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _is_refused(path: str) -> bool:
    _, _, target = path.partition("/file=")
    return bool(_SCHEME.match(target)) or any(
        part.startswith("proxy=") or part in _NOT_OFFERED for part in path.split("/")
    )


def launch_options() -> dict[str, Any]:
    """Arguments of `Blocks.launch`: only here, to nobody else, and looking like this."""
    return {
        "share": False,
        "quiet": True,
        "inbrowser": False,
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "footer_links": [],
        "allowed_paths": [],
        "theme": theme(),
        "css": panels.asset("page.css"),
        "app_kwargs": {"middleware": [Middleware(Guard)], "docs_url": None, "redoc_url": None},
    }


def theme() -> gr.themes.Base:
    """Quiet greys, one accent, the fonts of the machine (nothing is fetched)."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=list(_SANS),
        font_mono=list(_MONO),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )
