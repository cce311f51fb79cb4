/** The element with an id. */
export const $ = id => document.getElementById(id)

/** Touches the page only where it changes, so that a screen reader and the layout are left in peace. */
export function show(target, text) {
  if (target.textContent !== text) target.textContent = text
}

/** The same of an attribute; null takes it away. */
export function mark(target, name, value) {
  if (target.getAttribute(name) === value) return
  if (value === null) target.removeAttribute(name)
  else target.setAttribute(name, value)
}

export function element(name, className = '', text = '') {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

export function svgElement(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
  return made
}

/** How long nothing has changed before it is said, in milliseconds: who listens is told the end of it, not each step. */
const CALM_MS = 1000

let saying

/** Says something to a screen reader, once nothing else has been said for a moment. */
export function say(text) {
  clearTimeout(saying)
  saying = setTimeout(() => show($('said'), text), CALM_MS)
}
