"""What a tenant, a producer or an exception may write, to become more than text on a page."""

MARK = "window.complaints.push('ran')"
PARTS = (
    f"<script>{MARK}</script>",
    f"<img src=x onerror={MARK}>",
    f'"><svg onload={MARK}>',
    f"'><details open ontoggle={MARK}>",
    f"</title></textarea></pre><script>{MARK}</script>",
    f'<a href="javascript:{MARK}">x</a>',
    f'<div hx-get=/admin hx-trigger=load hx-on:htmx:load="{MARK}" data-hx-on--load="{MARK}">x</div>',
    "<style>*{display:none}</style><link rel=stylesheet href=//evil.example/x.css>",
    "<iframe srcdoc='<script>parent.complaints.push(1)</script>'></iframe>",
    f"{{{{ 7*7 }}}}{{% raw %}}${{{MARK}}}",
    "<!--<base href=//evil.example/>--><meta http-equiv=refresh content=0;url=//evil.example>",
    "\u202etxet esrever\u202c \u2028\u0085 \x1b[31mred \x7f",
)
HOSTILE = " ".join(PARTS)
