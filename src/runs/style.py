"""How a page looks: light and dark by the reader's setting, from telephones to wide screens."""

from __future__ import annotations

# Charts take their colours from here too: --first to --third are the lines of a chart.
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f5f7f9;--ink:#1b2027;--soft:#566270;
--line:#d9dfe6;--first:#0a62c2;--second:#b4530a;--third:#127a41;--bad:#bf1f2b;--mark:#8a3ffc;
--shade:rgba(20,30,45,.28)}
@media (prefers-color-scheme:dark){:root{--paper:#0f1318;--raised:#181e26;--ink:#e5ebf1;
--soft:#9ca9b6;--line:#2d3640;--first:#62aeff;--second:#f2a65a;--third:#5fd08d;--bad:#ff7b81;
--mark:#c29bff;--shade:rgba(160,180,205,.38)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth;scroll-padding-top:1rem}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","PingFang SC",
"Noto Sans CJK SC","Microsoft YaHei",sans-serif}
header,nav,main,footer{max-width:1160px;margin:0 auto;padding:0 16px}
header{padding-top:28px}
h1{font-size:clamp(1.45rem,1.1rem + 1.6vw,2.1rem);line-height:1.2;margin:0 0 .35rem;
letter-spacing:-.015em}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 .75rem}
h3{font-size:.95rem;margin:0 0 .35rem}
p{margin:.5rem 0}
.soft,figcaption,.facts{color:var(--soft)}
.facts,figcaption,.soft{font-size:.875rem}
nav ul{display:flex;flex-wrap:wrap;gap:6px;list-style:none;margin:18px 0 0;padding:0}
nav a{display:block;padding:6px 12px;border:1px solid var(--line);border-radius:999px;
color:var(--ink);font-size:.875rem;text-decoration:none}
nav a:hover{background:var(--raised)}
a{color:var(--first)}
.skip{position:absolute;left:-999px;top:8px;padding:8px 12px;background:var(--paper);z-index:1}
.skip:focus{left:8px}
:focus-visible{outline:3px solid var(--first);outline-offset:2px;border-radius:4px}
section{padding:28px 0 4px;margin-top:24px;border-top:1px solid var(--line)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;
margin:20px 0 0}
.tiles div{background:var(--raised);border:1px solid var(--line);border-radius:10px;
padding:10px 14px}
.tiles dt{color:var(--soft);font-size:.8125rem}
.tiles dd{margin:0;font-size:1.375rem;font-weight:650;line-height:1.3;
font-variant-numeric:tabular-nums}
.tiles small{display:block;color:var(--soft);font-size:.8125rem;font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));
gap:20px 24px}
figure{margin:0;min-width:0}
.charts figure,.card{border:1px solid var(--line);border-radius:10px;padding:12px}
.scroll{overflow:auto;max-width:100%;max-height:480px;border:1px solid var(--line);
border-radius:10px;
background:linear-gradient(90deg,var(--paper) 30%,transparent) left/40px 100% no-repeat local,
linear-gradient(270deg,var(--paper) 30%,transparent) right/40px 100% no-repeat local,
radial-gradient(farthest-side at 0 50%,var(--shade),transparent) left/12px 100% no-repeat scroll,
radial-gradient(farthest-side at 100% 50%,var(--shade),transparent) right/12px 100% no-repeat
scroll}
.scroll.fit{width:fit-content}
table{border-collapse:collapse;font-size:.875rem;width:100%;overflow-wrap:normal}
th,td{padding:6px 14px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
th{position:sticky;top:0;background:var(--raised);white-space:nowrap;font-weight:600}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td{max-width:26rem;overflow-wrap:anywhere}
th[scope=row]{position:static;vertical-align:top}
tr:last-child th[scope=row]{border-bottom:0}
.scroll:not(.fit) td:nth-child(2):not(.n){min-width:15rem}
.scroll:not(.fit) td:first-child,.scroll:not(.fit) td:last-child{white-space:nowrap}
.two{align-items:start}
.two h3{margin-top:.25rem}
.two .scroll{max-height:none}
.below>div{margin-top:16px}
details{border:1px solid var(--line);border-radius:10px;margin:10px 0;padding:0 14px}
summary{padding:10px 0;cursor:pointer;font-weight:600}
details>.scroll,details>ol{margin:0 0 14px}
code,pre{font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{overflow:auto;background:var(--raised);border:1px solid var(--line);border-radius:10px;
padding:12px 14px;margin:.5rem 0}
ul.lines{margin:0;padding-left:1.1rem}
ul.lines li{margin:.2rem 0}
svg{display:block;width:100%;height:auto;font:11.5px system-ui,sans-serif}
svg text{fill:var(--soft)}
svg .name{fill:var(--ink)}
svg .on{fill:var(--paper)}
svg .axis{stroke:var(--line);fill:none}
svg .even{stroke:var(--soft);stroke-dasharray:4 4}
svg .cell,svg .bar{fill:var(--first)}
svg .track{fill:none;stroke:var(--line)}
svg .mark{stroke:var(--mark);stroke-dasharray:4 3}
svg .marked{fill:var(--mark);font-weight:700}
svg .first{stroke:var(--first)}svg .second{stroke:var(--second)}svg .third{stroke:var(--third)}
svg path{fill:none;stroke-width:1.8;stroke-linejoin:round}
svg circle{fill:var(--paper);stroke-width:1.8}
.key{display:inline-block;width:18px;height:0;border-top:3px solid;margin:0 6px 3px 0}
.key.first{color:var(--first)}.key.second{color:var(--second)}.key.third{color:var(--third)}
.key.mark{color:var(--mark);border-top-style:dashed}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:6px 0 0}
.wide{max-width:100%;overflow-x:auto}
.mistakes{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,160px),1fr));
gap:14px;list-style:none;margin:14px 0 0;padding:0}
.mistakes.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}
.mistakes .images{display:flex;gap:6px;margin-bottom:8px}
.mistakes img{flex:1 1 0;min-width:0;width:100%;height:auto;border-radius:6px;display:block;
background:var(--raised)}
.mistakes img.small{image-rendering:pixelated}
.mistakes b{display:block;line-height:1.35;color:var(--bad)}
.mistakes span{display:block;line-height:1.35}
.scale{display:grid;grid-template-columns:auto minmax(80px,220px) auto;
justify-content:start;align-items:center;gap:10px;
margin:.75rem 0}
.scale i{height:12px;border-radius:6px;border:1px solid var(--line)}
.share{display:block;height:6px;border-radius:3px;background:var(--raised);margin-top:4px;
min-width:90px;overflow:hidden}
.share i{display:block;height:100%;background:var(--first)}
footer{margin-top:32px;padding-bottom:40px}
@media (max-width:1000px){.tiles{grid-template-columns:repeat(3,1fr)}}
@media (max-width:600px){
nav ul{flex-wrap:nowrap;overflow-x:auto;margin-right:-16px;padding:3px 16px 3px 3px}
nav a{white-space:nowrap}
.mistakes.pairs li{display:grid;grid-template-columns:13.5rem 1fr;gap:12px}
.mistakes.pairs .images{margin:0}}
@media (max-width:480px){th,td{padding:6px 9px}.tiles{grid-template-columns:repeat(2,1fr)}
section{padding-top:22px}}
@media print{nav{display:none}.scroll{max-height:none}}
"""
