/** How long the page rests between two frames that change it, in milliseconds: nobody reads faster, and each costs. */
const REST_MS = 200

const waiting = new Set()
let isAsked = false
let drawnAt = -Infinity

/**
 * Calls what draws a part of the page with the next frame, once however often it was asked for; while much comes, five
 * times a second, so that nearly all frames are left to whoever scrolls or types.
 */
export function render(draw) {
  waiting.add(draw)
  if (isAsked) return
  isAsked = true
  const rest = drawnAt + REST_MS - performance.now()
  if (rest > 0) setTimeout(() => requestAnimationFrame(drawAll), rest)
  else requestAnimationFrame(drawAll)
}

function drawAll() {
  isAsked = false
  drawnAt = performance.now()
  const draws = [...waiting]
  waiting.clear()
  for (const draw of draws) draw()
}
