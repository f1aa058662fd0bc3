"""How the page looks: theme and style."""

from typing import Any

import gradio as gr

from avllm.demo import panels

_SANS = ("Inter", "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def page_options() -> dict[str, Any]:
    """Arguments of `gr.mount_gradio_app`: nothing but the page, to nobody else, and looking like this."""
    return {
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "footer_links": [],
        "allowed_paths": [],
        "theme": theme(),
        "css": panels.asset("page.css"),
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None},
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
