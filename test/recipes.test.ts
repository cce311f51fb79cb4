import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { ask, build, publishAll } from './support/app.ts'
import { eventually, Inbox } from './support/inbox.ts'
import { startProxy } from './support/proxy.ts'
import { bearer, SECRET } from './support/tokens.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const AS_PAGE = { accept: 'application/json' }

const run = promisify(execFile)

/** Runs Python on an example. */
async function python(args: readonly string[], env: Record<string, string>): Promise<string> {
  const { stdout } = await run('python3', args, {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], PYTHONDONTWRITEBYTECODE: '1', ...env }
  })
  return stdout.trim()
}

t.test('outbox: what is committed is published once and in order, whatever crashes', async t => {
  const server = await build(t)
  const proxy = await startProxy(t, server)
  const folder = mkdtempSync(join(tmpdir(), 'ringside-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const outbox = (...args: string[]) =>
    python(['examples/outbox/outbox.py', join(folder, 'shop.db'), ...args], { RINGSIDE_URL: proxy.url })
  const items = async () => {
    const page = await ask(server, '/events/orders?rewind=1000', { headers: AS_PAGE })
    return (page.json()['events'] as { data: { item: string } }[]).map(({ data }) => data.item)
  }

  await outbox('order', 'tea')
  await outbox('order', 'milk')
  t.strictSame(await items(), [], 'nothing before the relay')
  // a relay that crashes when it has published and not yet deleted: what it published comes again
  const crash = `
import sys
sys.path.insert(0, "examples/outbox")
import outbox, sqlite3
db = sqlite3.connect(sys.argv[1])
publish = outbox.publish
def publish_and_crash(*event):
    publish(*event)
    sys.exit("crashed")
outbox.publish = publish_and_crash
outbox.relay(db)`
  await t.rejects(python(['-c', crash, join(folder, 'shop.db')], { RINGSIDE_URL: proxy.url }), /crashed/)
  t.strictSame(await items(), ['tea'])
  await outbox('relay')
  t.strictSame(await items(), ['tea', 'milk'])

  // a server that can't be reached: it waits
  await outbox('order', 'sugar')
  proxy.cut()
  const waiting = outbox('relay')
  await eventually(proxy.opened, opened => opened > 3, 'an attempt')
  t.strictSame(await items(), ['tea', 'milk'])
  proxy.restore()
  await waiting
  await outbox('relay')
  t.strictSame(await items(), ['tea', 'milk', 'sugar'])
})

interface Order {
  readonly id: number
  readonly item: string
}

/** What examples/gap/follow.js exports, which has no types. */
interface Example {
  follow<Whole, Event>(
    topics: string,
    options: {
      url: string
      load: () => Promise<Whole>
      apply: (whole: Whole, event: Event) => Whole
      show: (whole: Whole) => void
    }
  ): () => void
}

t.test('a gap: what is shown is the source of truth again', async t => {
  const { follow } = (await import(join(ROOT, 'examples/gap/follow.js'))) as Example
  const server = await build(t, { RING_SIZE: '5' })
  const proxy = await startProxy(t, server)
  // the source of truth: it changes, and then publishes what has changed
  const orders: Order[] = [{ id: 0, item: 'tea' }]
  const place = async (...items: string[]) => {
    const placed = items.map((item, index) => ({ id: orders.length + index, item }))
    orders.push(...placed)
    await publishAll(
      server,
      placed.map(data => ({ topic: 'orders', data }))
    )
  }
  const shown = new Inbox<readonly Order[]>()
  let loads = 0
  let fails = 1
  const stop = follow('orders', {
    url: proxy.url,
    load: async () => {
      loads++
      if (fails-- > 0) throw new Error('the API does not answer')
      return [...orders]
    },
    apply: (whole: readonly Order[], { data }: { data: Order }) => [
      ...whole.filter(({ id }) => id !== data.id),
      data
    ],
    show: (whole: readonly Order[]) => shown.push(whole)
  })
  t.teardown(stop)
  const showsAll = () =>
    shown.until(() => JSON.stringify(shown.all.at(-1)) === JSON.stringify(orders), 'all orders')

  await showsAll()
  t.equal(loads, 2, 'the first one failed')
  await place('milk')
  await showsAll()
  proxy.cut()
  await place('sugar')
  proxy.restore()
  await showsAll()
  t.equal(loads, 2, 'what the ring still has needs no load')
  proxy.cut()
  await place('a', 'b', 'c', 'd', 'e', 'f', 'g')
  proxy.restore()
  await showsAll()
  t.equal(loads, 3)
})

t.test('tokens made in other languages', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const isGood = async (t: Test, token: string) => {
    const read = (topic: string) =>
      ask(server, `/events/${topic}`, { headers: { ...AS_PAGE, ...bearer(token) } })
    t.equal((await read('orders/1')).status, 200)
    t.equal((await read('secret')).status, 403)
    const inbox = await ask(server, '/notifications', { headers: { ...AS_PAGE, ...bearer(token) } })
    t.match(inbox.json(), { unread: 0 }, 'the inbox of its user')
  }
  const run = (program: string, args: readonly string[], env = {}) =>
    spawnSync(program, args, {
      cwd: join(ROOT, 'examples/tokens'),
      env: { ...process.env, ...env },
      encoding: 'utf8'
    })
  // what is there is used: nothing is installed, and nothing fetched
  for (const [language, program, check, args] of [
    ['Python', 'python3', ['-c', 'import jwt'], ['token.py']],
    ['PHP', 'php', ['-r', 'require "vendor/autoload.php";'], ['token.php']],
    ['Go', 'go', ['build', '-o', '/dev/null', 'token.go'], ['run', 'token.go']],
    ['Java', 'java', ['Token.java', 'alice'], ['Token.java']]
  ] as const) {
    const env = { JWT_SECRET: SECRET, GOPROXY: 'off' }
    const isThere = run(program, check, env).status === 0
    t.test(language, isThere ? {} : { skip: `there is no ${program} with its library` }, async t => {
      await isGood(t, run(program, [...args, 'alice', 'orders/*'], env).stdout.trim())
    })
  }
})
