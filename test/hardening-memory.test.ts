/**
 * What a client can cost is bounded: a server with a heap of 400 MB and the default limits is attacked by one client after
 * the other, and an honest publisher and an honest subscriber beside them lose nothing and are refused nothing.
 * `HARDENING_SECONDS` says how long each attack lasts, `HARDENING_ATTACKS` which of them there are (a regular expression).
 */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { ask, metricsOf, post } from './support/app.ts'
import { serve } from './support/process.ts'
import { listen } from './support/reader.ts'
import { bearer, SECRET, tokenFor } from './support/tokens.ts'

const SECONDS = Number(process.env['HARDENING_SECONDS'] ?? 1)
const ONLY = new RegExp(process.env['HARDENING_ATTACKS'] ?? '')
const ATTACKER = fileURLToPath(new URL('support/attacker.ts', import.meta.url))

/** The most memory that the process may ever have had resident, in bytes. */
const MOST = 512 * 2 ** 20

const ATTACKS = [
  'polls of ever new topics',
  'streams of ever new topics',
  'bodies of one who may publish nothing',
  'bodies that never end',
  'large events on ever new topics',
  'large batches',
  'large pages',
  'large pages that nobody reads',
  'ever new keys',
  'ever new topics',
  'ever new states',
  'ever new quotes',
  'inboxes of everybody',
  'pages of a wide wildcard',
  'heads that never end',
  'numbers in odd form',
  'messages of WebSockets'
].filter(attack => ONLY.test(attack))

t.setTimeout((60 + ATTACKS.length * (SECONDS + 20)) * 1000)

t.test('a server under attack goes on serving everybody else, within its memory', async t => {
  const server = await serve(t, {
    NODE_OPTIONS: '--max-old-space-size=400',
    JWT_SECRET: SECRET,
    ANONYMOUS_SUBSCRIBE: 'public/**'
  })
  const honest = bearer(await tokenFor({ subscribe: ['**'], publish: ['honest/**'] }, 'alice'))
  const reader = await listen(t, server, '/events/honest/news', { accept: 'text/event-stream', ...honest })
  const ids: string[] = []
  const refused: string[] = []
  let isOver = false
  const publishing = (async () => {
    while (!isOver) {
      const { status, text } = await post(server, '/events/honest/news', `${ids.length}`, honest)
      if (status === 201) ids.push((JSON.parse(text) as { id: string }).id)
      else refused.push(`${status} ${text}`)
      await delay(50)
    }
  })()

  for (const attack of ATTACKS) {
    // each by somebody else, who has all of a client's rates
    const tokens = JSON.stringify({
      publisher: await tokenFor({ subscribe: ['**'], publish: ['**'] }, `mallory ${attack}`),
      reader: await tokenFor({ subscribe: ['**'] }, `eve ${attack}`)
    })
    t.comment(`${attack}: ${await attackWith(attack, server.port, tokens)}`)
    t.equal(server.child.exitCode, null, `${attack}: it lives`)
    const { status } = await ask(server, '/readyz')
    t.equal(status, 200, `${attack}: it is ready`)
    const resident = peakOf(server.child.pid!)
    t.ok(resident < MOST, `${attack}: it has had at most ${Math.round(resident / 2 ** 20)} MiB`)
  }
  isOver = true
  await publishing
  t.strictSame(refused, [], 'the honest publisher is refused nothing')
  const got = await reader.until(ids.length)
  t.strictSame(
    got.map(({ id }) => id),
    ids,
    'the honest subscriber loses nothing'
  )
  t.ok(ids.length > ATTACKS.length, `${ids.length} events`)
  const metrics = await metricsOf(server)
  const held = [...metrics].filter(([name]) => name.startsWith('ringside_memory_bytes'))
  const sum = held.reduce((all, [, bytes]) => all + bytes, 0)
  t.ok(sum <= metrics.get('ringside_memory_limit_bytes')!, `${JSON.stringify(held)}`)
})

/** How the answers to an attack were, by status, as JSON. */
async function attackWith(attack: string, port: number, tokens: string): Promise<string> {
  const args = ['--import=tsx', ATTACKER, attack, String(port), String(SECONDS), tokens]
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: (SECONDS + 20) * 1000 })
  return stdout.trim()
}

/** The most that a process has had resident, in bytes: proc(5), VmHWM. */
function peakOf(pid: number): number {
  const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return Number(kilobytes) * 1024
}
