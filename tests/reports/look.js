// How a page looks in a window: the body of a function whose value the test looks at.
const plots = [...document.querySelectorAll('.plot')];
const shade = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 765;
const style = getComputedStyle(document.body);
const tick = plots[0].querySelector('.tick');
return {
  width: innerWidth,
  beyond: document.documentElement.scrollWidth - innerWidth,
  plots: plots.map((p) => p.getBoundingClientRect().right),
  text: [shade(style.color), shade(style.backgroundColor)],
  curves: [...document.querySelectorAll('[data-figure=steps] .series.curve path')].map((p) => shade(getComputedStyle(p).stroke)),
  size: parseFloat(getComputedStyle(tick).fontSize) * tick.getCTM().a,
};
