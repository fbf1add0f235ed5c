"""Styles of the page, and its keys."""

CSS = """
:root { --heat: .8; --zoom: 1; }
footer { display: none !important; }
#heading h1 { font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }
#heading small { font-weight: 400; opacity: .7; }
.window { overflow: auto; max-height: 75vh; border: 1px solid var(--border-color-primary); }
.layers { position: relative; width: calc(100% * var(--zoom)); }
.layers > * { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; }
.layers > img:first-child { image-rendering: auto; }
.layers .heat { opacity: var(--heat); }
.layers rect { stroke: #00e5ff; stroke-width: 2px; }
.layers rect, .layers .counted { fill: none; vector-effect: non-scaling-stroke; }
.layers .counted { stroke: #fff; stroke-width: 1px; stroke-dasharray: 5 4; }
.layers text { fill: #00e5ff; font-weight: 700; }
figure { margin: .5rem 0; }
figure img { max-width: 100%; max-height: 22rem; }
figcaption, caption { opacity: .75; font-size: .85rem; text-align: left; }
.scroll { overflow-x: auto; }
#details table, #counts table, #versions table {
  border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums;
}
#details tr, #counts tr, #versions tr { border: 0; }
#details :is(td, th), #counts :is(td, th), #versions :is(td, th) {
  border: 0; border-bottom: 1px solid var(--border-color-primary); padding: .3rem .6rem .3rem 0;
  text-align: left; vertical-align: top; font-weight: 400;
}
.verdict { font-size: 1.2rem; font-weight: 700; margin: .5rem 0 0; }
.verdict.defective { color: #c0271d; } .verdict.good { color: #1b6fb0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .5rem; }
#images label { width: 100%; overflow-wrap: anywhere; }
.histogram svg { width: 100%; max-width: 40rem; }
.histogram text { fill: currentColor; font-size: 14px; }
.bars.good { fill: #1b6fb0; } .bars.defective { fill: #c0271d; } .bars.uncertain { fill: #b98300; }
.axis { stroke: currentColor; opacity: .4; fill: none; }
.limit { stroke: currentColor; stroke-dasharray: 4 3; }
#log textarea { font-family: monospace; font-size: .8rem; }
"""

# Of the tab Review, wherever nothing is being typed.
KEYS = """<script>
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest("textarea, input:not([type=radio]), select, [contenteditable]")) return;
  const id = { g: "good", d: "defective", s: "skip", u: "undo" }[event.key];
  const button = id && document.getElementById(id);
  if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
});
</script>"""
