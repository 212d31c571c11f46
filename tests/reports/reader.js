// What a reader does: the body of a function whose value the test looks at.
const plots = [...document.querySelectorAll('.plot')];
const curves = (id) => document.querySelectorAll(`[data-figure=${id}] .series.curve`).length;
const keys = [...document.querySelectorAll('#legend .key')];
const labels = (id) =>
  [...document.querySelectorAll(`[data-figure=${id}] svg .label`)].map((t) => t.textContent);
const out = {};
out.plots = plots.map((p) => [p.dataset.figure, p.querySelectorAll('svg').length]);
out.keys = keys.map((k) => [k.textContent, k.getAttribute('aria-pressed'), k.tabIndex]);
out.before = [curves('steps'), curves('experts-dropped')];
keys[0].click();
out.without_dense = [curves('steps'), curves('experts-dropped'), keys[0].getAttribute('aria-pressed')];
document.querySelectorAll('#legend .all')[1].click();
out.none = curves('steps');
document.querySelectorAll('#legend .all')[0].click();
out.all = curves('steps');

const plot = document.querySelector('[data-figure=steps]'), svg = plot.querySelector('svg');
const spot = svg.querySelector('.series.curve path').getAttribute('d').slice(1).split('L').pop().split(' ');
const box = svg.getBoundingClientRect(), by = box.width / svg.viewBox.baseVal.width;
plot.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + spot[0] * by, clientY: box.top + spot[1] * by}));
const tip = plot.querySelector('.tip');
out.hover = [tip.hidden, [...tip.children].map((c) => c.textContent)];
plot.dispatchEvent(new PointerEvent('pointerleave'));
out.left = tip.hidden;
for (const key of ['ArrowRight', 'ArrowRight', 'ArrowDown'])
  svg.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
out.walked = [...tip.children].map((c) => c.textContent);

const buttons = [...plot.previousElementSibling.children];
out.buttons = buttons.map((b) => b.textContent);
buttons[1].click();
buttons[3].click();
out.tokens = labels('steps');
out.pressed = buttons.map((b) => b.getAttribute('aria-pressed'));

const table = document.getElementById('table-runs');
const column = (n) => [...table.tBodies[0].rows].map((r) => r.cells[n].textContent);
const loss = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === 'final loss');
const button = table.tHead.rows[0].cells[loss].querySelector('button');
button.click();
out.up = column(loss);
button.click();
out.down = column(loss);
out.sorted = table.tHead.rows[0].cells[loss].getAttribute('aria-sort');
out.requests = performance.getEntriesByType('resource').length;
return out;
