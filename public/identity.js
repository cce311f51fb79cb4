/** The token's panel: a field for it, and what it allows. */
import { become, claims, isAdmin, patternsOf, token } from './access.js'
import { $, element, show } from './dom.js'
import { on, stream } from './stream.js'

export function startIdentity() {
  $('token-form').addEventListener('submit', event => {
    event.preventDefault()
    become($('token').value.trim())
  })
  $('forget').addEventListener('click', () => become(''))
  $('forget').hidden = !token
  on('state', drawRights)
  drawRights()
}

function drawRights() {
  show(
    $('token-who'),
    token ? (claims.sub === undefined ? 'a token without “sub”' : String(claims.sub)) : 'no token'
  )
  const rows = token ? rightsOfToken() : [['Without a token', withoutToken()]]
  $('rights').replaceChildren(
    ...rows.flatMap(([name, value]) => [element('dt', '', name), element('dd', '', value)])
  )
}

function withoutToken() {
  if (stream.refused.length === 0)
    return stream.state === 'closed'
      ? 'nothing that is shown here may be read'
      : 'everything that is shown here may be read'
  return stream.topics.length > 0
    ? `${stream.topics.join(', ')} may be read`
    : 'nothing that is shown here may be read'
}

function rightsOfToken() {
  const list = right => patternsOf(right).join(', ') || 'nothing'
  return [
    ['Reads', list('subscribe')],
    ['Publishes', list('publish')],
    ['Operates the server', isAdmin ? 'yes' : 'no'],
    ['Good until', typeof claims.exp === 'number' ? new Date(1000 * claims.exp).toLocaleString('en-GB') : '–']
  ]
}
