import { keepToken, keptToken } from './token.js'

/**
 * Who this page is: its token, what that claims, and requests that show it. What it claims is only shown: what may be
 * done is for the server to say.
 */

/** Whose inbox is shown where the server asks nobody who they are. */
const DEMO_USER = 'demo'

export const token = readToken()

/** What the token claims; empty without one, and for what can't be read. */
export const claims = claimsOf(token)

/** Whose notifications this page shows; undefined for nobody's. */
export const user = token ? claims.sub : DEMO_USER

/** Whether the server has said that it wants a token. */
export const server = { wantsToken: false }

/** Opened with `#token=…`, the page takes it from its address: what stands there is not sent. */
function readToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token')
  if (given !== null) {
    keepToken(given)
    // nor does it stay there, where others would see it, and the history keep it
    window.history.replaceState(null, '', location.pathname + location.search)
  }
  return keptToken()
}

/** Goes on as somebody else; with an empty token as nobody. */
export function become(text) {
  keepToken(text)
  location.reload()
}

function claimsOf(text) {
  try {
    const base64 = text.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')
    const bytes = Uint8Array.from(atob(base64), each => each.charCodeAt(0))
    return Object(JSON.parse(new TextDecoder().decode(bytes)))
  } catch {
    return {}
  }
}

/** The patterns that the token claims, for `subscribe` or `publish`. */
export function patternsOf(right) {
  const patterns = claims.ringside?.[right]
  return Array.isArray(patterns) ? patterns.filter(pattern => typeof pattern === 'string') : []
}

export const isAdmin = claims.ringside?.admin === true

/** Which claim is lacking to `subscribe` to a topic or wildcard, or to `publish` on it; empty where none is, as far as known. */
export function lacking(right, topic) {
  if (!token) return server.wantsToken ? `a token whose claim “ringside” has ${claim(right, topic)}` : ''
  const isOwn = right === 'subscribe' && topic === `notifications/${claims.sub}`
  if (isOwn || patternsOf(right).some(pattern => covers(pattern, topic))) return ''
  return `${claim(right, topic)} in the claim “ringside” of the token`
}

function claim(right, topic) {
  return `“${right}”: [“${topic}”]`
}

function covers(pattern, topic) {
  const wanted = topic.split('/')
  const segments = pattern.split('/')
  const isOpen = segments.at(-1) === '**'
  const fixed = isOpen ? segments.slice(0, -1) : segments
  if (isOpen ? wanted.length < fixed.length : wanted.length !== fixed.length) return false
  return fixed.every((each, at) => each === '*' || each === wanted[at])
}

/** Asks the server; rejects with what it says where it refuses. */
export async function ask(path, { headers, ...init } = {}) {
  const response = await fetch(path, {
    ...init,
    headers: { accept: 'application/json', ...(token && { authorization: `Bearer ${token}` }), ...headers },
    cache: 'no-store'
  })
  if (response.status === 401 && !token) server.wantsToken = true
  if (response.ok) return response
  const { detail, title } = await response.json().catch(() => ({}))
  throw Object.assign(new Error(detail ?? title ?? `the server answered ${response.status}`), {
    status: response.status
  })
}

/** Whether the server lets this page read a topic or wildcard; true where it can't be asked. */
export async function mayRead(topic) {
  const path = `events?topic=${encodeURIComponent(topic)}`
  const isRefused = ({ status }) => status === 401 || status === 403
  return ask(path, { method: 'HEAD' }).then(
    () => true,
    error => !isRefused(error)
  )
}
