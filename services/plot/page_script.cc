#include "services/plot/page.h"

namespace longwave::plot {

// Redraws the figure's traces for the range of positions in view, at the finest resolution that
// gives each window more than a pixel; reads out the window under the pointer.
const char kPageScript[] = R"js(
(() => {
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const svg = document.querySelector('svg');
const byId = id => document.getElementById(id);
const {left, width, length, main, spread, gc, bottom, unit} = data;
const finest = data.levels[0];
const least = Math.min(length, 8 * finest.width);  // positions in view at the closest
let from = 0, to = length, level = null;

function make(tag, attributes, parent = svg) {
  const node = document.createElementNS(svg.namespaceURI, tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  parent.appendChild(node);
  return node;
}
const commas = n => Math.round(n).toLocaleString('en-US');
const bases = n => commas(n) + (n === 1 ? ' base' : ' bases');
const toX = p => left + width * (p - from) / (to - from);
const toP = x => Math.min(to, Math.max(from, from + (to - from) * (x - left) / width));
const inside = x => Math.min(left + width, Math.max(left, x));
const toY = (panel, v) => panel.top + panel.height * (panel.high - v) / (panel.high - panel.low);

// The points of windows a..b as the figure draws them: steps where few, else a line.
function points(a, b, windows, y, few) {
  const out = [];
  for (let i = a; i <= b; ++i) {
    const l = toX(i * windows.width), r = toX(Math.min(length, (i + 1) * windows.width)), at = y(i);
    if (few) out.push([l, at], [r, at]);
    else {
      if (i === a) out.push([l, at]);
      out.push([(l + r) / 2, at]);
      if (i === b) out.push([r, at]);
    }
  }
  return out;
}
const path = list => list.map(p => p[0].toFixed(1) + ',' + p[1].toFixed(1)).join('L');
function runs(first, last, has, f) {
  for (let i = first; i <= last; ++i) {
    if (!has(i)) continue;
    const a = i;
    while (i < last && has(i + 1)) ++i;
    f(a, i);
  }
}
function line(id, first, last, windows, values, panel, few) {
  let d = '';
  runs(first, last, i => values[i] !== null, (a, b) => {
    d += 'M' + path(points(a, b, windows, i => toY(panel, values[i] / 1000), few));
  });
  byId(id).setAttribute('d', d);
}
function band(id, first, last, windows, high, low, panel, few) {
  let d = '';
  runs(first, last, i => windows.mean[i] !== null, (a, b) => {
    d += 'M' + path(points(a, b, windows, i => toY(panel, high(i) / 1000), few)) + 'L' +
        path(points(a, b, windows, i => toY(panel, low(i) / 1000), few).reverse()) + 'Z';
  });
  byId(id).setAttribute('d', d);
}
function parts(windows, i) {  // the finest windows' extremes within window i
  const n = windows.width / finest.width;
  let low = Infinity, high = -Infinity;
  for (const v of finest.mean.slice(i * n, (i + 1) * n)) {
    if (v === null) continue;
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  return [low, high];
}
function tickStep(range, count) {
  const raw = range / count, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].find(m => m * power >= raw * 0.999) * power;
}
function drawAxis() {
  const axis = byId('xaxis');
  axis.replaceChildren();
  const low = from / data.bases, high = to / data.bases;
  const step = Math.max(tickStep(high - low, 10), 1 / data.bases);
  const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9) +
      (Math.abs(step / 10 ** Math.floor(Math.log10(step) + 1e-9) - 2.5) < 1e-6 ? 1 : 0)));
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) {
    const x = toX(i * step * data.bases);
    make('line', {class: 'axis', x1: x, x2: x, y1: bottom, y2: bottom + 5}, axis);
    make('text', {class: 'tick mid', x, y: bottom + 18}, axis).textContent =
        (i * step).toFixed(decimals);
  }
}
function draw() {
  level = data.levels.find(l => (to - from) / l.width <= data.columns) || data.levels.at(-1);
  const first = Math.max(0, Math.floor(from / level.width) - 1);
  const last = Math.min(level.mean.length - 1, Math.ceil(to / level.width));
  const few = (to - from) / level.width <= 120;
  line('trace', first, last, level, level.mean, main, few);
  if (level === finest) byId('band').setAttribute('d', '');
  else band('band', first, last, level, i => parts(level, i)[1], i => parts(level, i)[0], main, few);
  line('spread-trace', first, last, level, level.p50, spread, few);
  band('spread-band', first, last, level, i => level.p90[i], i => level.p10[i], spread, few);
  if (gc) line('gc', first, last, level, level.gc, gc, few);
  byId('window').textContent = level.width === 1 ? 'each base' : 'mean of ' + bases(level.width);
  if (byId('parts')) byId('parts').toggleAttribute('hidden', level === finest);
  for (const mark of byId('marks').children) {
    const at = +mark.dataset.at, inside = at >= from && at <= to;
    mark.toggleAttribute('hidden', !inside);
    if (inside) {
      const original = left + width * at / length;
      mark.setAttribute('transform', `translate(${(toX(at) - original).toFixed(1)} 0)`);
    }
  }
  drawAxis();
  reset.toggleAttribute('hidden', from === 0 && to === length);
}
function show(a, b) {
  const span = Math.min(length, Math.max(least, b - a));
  const start = Math.max(0, Math.min(length - span, (a + b - span) / 2));
  from = start;
  to = start + span;
  draw();
  hover(null);
}

// Controls at the top right: the whole track again, light or dark.
function control(x, w, label, action) {
  const g = make('g', {class: 'control', role: 'button', tabindex: 0, 'aria-label': label});
  make('rect', {x, y: 20, width: w, height: 24, rx: 5}, g);
  make('text', {x: x + w / 2, y: 36, class: 'mid'}, g).textContent = label;
  g.addEventListener('click', action);
  g.addEventListener('keydown', e => { if (e.key === 'Enter' || e.key === ' ') action(); });
  return g;
}
control(1090, 80, 'Light/dark', () => {
  const root = document.documentElement, set = root.dataset.theme;
  const dark = set ? set === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
});
const reset = control(980, 100, 'Whole track', () => show(0, length));

// The read-out beside the pointer.
const cursor = make('line', {id: 'cursor', y1: main.top, y2: bottom, hidden: ''});
const dot = make('circle', {id: 'dot', r: 3.5, hidden: ''});
const drag = make('rect', {id: 'drag', y: main.top, height: bottom - main.top, hidden: ''});
const card = make('g', {id: 'card', hidden: ''});
const paper = make('rect', {rx: 5}, card);
const hint = make('text', {class: 'note end hint', x: left + width, y: bottom + 40});
hint.textContent = 'Drag to zoom, double-click for the whole';
const surface = make('rect', {id: 'surface', x: left, y: main.top, width,
                              height: bottom - main.top});
function say(i) {  // what is known of window i, a line each
  const begin = i * level.width, end = Math.min(length, begin + level.width);
  const lines = [end - begin > 1 ? `${commas(begin + 1)} to ${commas(end)}` : commas(end)];
  if (level.mean[i] === null) return lines.concat('no value');
  const v = a => (a[i] / 1000).toFixed(2);
  lines.push(`${end - begin > 1 ? 'mean ' : ''}${(level.mean[i] / 1000).toFixed(3)} ${unit}`);
  if (end - begin > 1) lines.push(`middle 80 %: ${v(level.p10)} to ${v(level.p90)}`);
  if (gc && level.gc[i] !== null) lines.push(`GC ${(level.gc[i] / 10).toFixed(1)} %`);
  return lines;
}
function hover(x) {
  const i = x === null ? -1 : Math.min(level.mean.length - 1, Math.floor(toP(x) / level.width));
  const has = i >= 0 && level.mean[i] !== null;
  cursor.toggleAttribute('hidden', i < 0);
  card.toggleAttribute('hidden', i < 0);
  dot.toggleAttribute('hidden', !has);
  if (i < 0) return;
  const middle = inside(toX(Math.min(length, (i + 0.5) * level.width)));
  cursor.setAttribute('x1', middle);
  cursor.setAttribute('x2', middle);
  if (has) {
    dot.setAttribute('cx', middle);
    dot.setAttribute('cy', toY(main, level.mean[i] / 1000));
  }
  for (const old of card.querySelectorAll('text')) old.remove();
  const lines = say(i).map((line, k) => {
    const text = make('text', {y: main.top + 27 + 17 * k, class: k === 0 ? 'label' : ''}, card);
    text.textContent = line;
    return text;
  });
  const w = Math.max(...lines.map(t => t.getComputedTextLength())) + 20;
  const at = middle + 12 + w > left + width ? middle - 12 - w : middle + 12;
  for (const t of lines) t.setAttribute('x', at + 10);
  const box = {x: at, y: main.top + 10, width: w, height: 17 * lines.length + 10};
  for (const name in box) paper.setAttribute(name, box[name]);
}
const svgX = e => new DOMPoint(e.clientX, e.clientY).matrixTransform(
    svg.getScreenCTM().inverse()).x;
let start = null;
surface.addEventListener('pointerdown', e => {
  if (e.button !== 0) return;
  start = inside(svgX(e));
  surface.setPointerCapture(e.pointerId);
});
surface.addEventListener('pointermove', e => {
  const x = inside(svgX(e));
  hover(x);
  if (start === null) return;
  drag.toggleAttribute('hidden', false);
  drag.setAttribute('x', Math.min(start, x));
  drag.setAttribute('width', Math.abs(x - start));
});
surface.addEventListener('pointerup', e => {
  const x = inside(svgX(e));
  if (start !== null && Math.abs(x - start) > 4) {
    show(toP(Math.min(start, x)), toP(Math.max(start, x)));
  }
  start = null;
  drag.toggleAttribute('hidden', true);
});
surface.addEventListener('pointercancel', () => {
  start = null;
  drag.toggleAttribute('hidden', true);
});
surface.addEventListener('pointerleave', () => { if (start === null) hover(null); });
surface.addEventListener('dblclick', () => show(0, length));
for (const row of document.querySelectorAll('.row')) {
  row.addEventListener('click', () => {
    const begin = +row.dataset.begin, end = +row.dataset.end, around = 12 * (end - begin);
    show(begin - around, end + around);
  });
}
addEventListener('keydown', e => {
  const span = to - from, middle = (from + to) / 2;
  if (e.key === 'Escape') show(0, length);
  else if (e.key === '+' || e.key === '=') show(middle - span / 4, middle + span / 4);
  else if (e.key === '-') show(middle - span, middle + span);
  else if (e.key === 'ArrowLeft') show(from - span / 4, to - span / 4);
  else if (e.key === 'ArrowRight') show(from + span / 4, to + span / 4);
});
draw();
hover(null);
})();
)js";

}  // namespace longwave::plot
