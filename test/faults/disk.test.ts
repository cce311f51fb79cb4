import { join } from 'node:path'
import t from 'tap'
import { ask, publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { exitOf, run, serve } from '../support/process.ts'
import { listen } from '../support/reader.ts'

t.test('what was stored is there after kill -9: events, cursors, dashboards, inboxes and keys', async t => {
  const env = { DATA_DIR: join(t.testdir(), 'store') }
  const first = await serve(t, env)
  const put = await ask(first, '/dashboards/ops', { method: 'PUT', body: '{"a":1}', headers: JSON_TYPE })
  t.equal(put.status, 201)
  const told = await ask(first, '/notifications', {
    ...{ method: 'POST', headers: JSON_TYPE },
    body: '{"to":"alice","title":"hello"}'
  })
  t.equal(told.status, 201)
  const seen = await publish(first, 'a/x', 'one')
  const keyed = { method: 'POST', body: 'two', headers: { 'idempotency-key': 'k1' } }
  const { id } = (await ask(first, '/events/a/y', keyed)).json()
  first.child.kill('SIGKILL')
  await exitOf(first)

  const second = await serve(t, env)
  const stream = await listen(t, second, '/events?topic=a/*', { 'last-event-id': seen })
  await stream.until(1)
  t.strictSame(
    stream.messages.map(({ id, data }) => [id, data]),
    [[id, 'two']],
    'exactly what was missed'
  )
  const again = await ask(second, '/events/a/y', keyed)
  t.match([again.json(), again.headers['idempotent-replayed']], [{ id }, 'true'])
  const dashboard = await ask(second, '/dashboards/ops', { headers: { accept: 'application/json' } })
  t.equal(dashboard.headers['etag'], put.headers['etag'])
  const inbox = await ask(second, '/notifications?user=alice', { headers: { accept: 'application/json' } })
  t.match(inbox.json(), { unread: 1, notifications: [{ title: 'hello' }] })
  await publish(second, 'a/x', 'three')
  await stream.until(2)
  second.child.kill('SIGTERM')
  t.match(await exitOf(second), { code: 0 })
  const checked = run(t, ['store', 'check'], env)
  t.match(await exitOf(checked), { code: 0 })
  t.match(checked.stdout(), /^\d+ events on \d+ topics, all as they were stored\n$/)
})

const JSON_TYPE = { 'content-type': 'application/json' }

t.test('a folder has one process, and one that can not be used is told in a line', async t => {
  const env = { DATA_DIR: t.testdir({ file: 'x' }) }
  const server = await serve(t, env)
  t.match(server.stdout(), `on the embedded store in ${env.DATA_DIR}`)
  const refusals: [Record<string, string>, RegExp][] = [
    [env, /^ringside: DATA_DIR=.*: another process is using it\n$/],
    [{ DATA_DIR: join(env.DATA_DIR, 'file') }, /^ringside: DATA_DIR=.*file: E\w+.*\n$/],
    [{ ...env, WORKERS: '2' }, /^ringside: WORKERS=2: the store on disk belongs to one process.*\n$/],
    [{ ...env, REDIS_URL: 'redis://127.0.0.1' }, /^ringside: REDIS_URL and DATA_DIR: .*\n$/],
    [{ ...env, FSYNC: 'never' }, /^ringside: FSYNC=never: not allowed.*\n$/]
  ]
  await Promise.all(
    refusals.map(async ([settings, line]) => {
      const refused = run(t, ['serve'], settings)
      t.match(await exitOf(refused), { code: 1 })
      t.match(refused.stderr(), line)
    })
  )
  const check = run(t, ['store', 'check'], env)
  t.match([await exitOf(check), check.stderr()], [{ code: 1 }, /another process is using it\n$/])
})

t.test('what is not flushed at once is said at the start, and flushed later', async t => {
  const env = { DATA_DIR: t.testdir(), FSYNC: '50ms' }
  const server = await serve(t, env)
  await eventually(
    () => server.stderr(),
    text => /FSYNC: .*every 50 ms/.test(text),
    'the warning'
  )
  const seen = await publish(server, 'a', 'one')
  await publish(server, 'a', 'two')
  server.child.kill('SIGKILL')
  await exitOf(server)
  const stream = await listen(t, await serve(t, env), '/events/a', { 'last-event-id': seen })
  await stream.until(1)
  t.match(stream.messages, [{ data: 'two' }])
})

t.test('metrics say how the store does', async t => {
  const server = await serve(t, { DATA_DIR: t.testdir() })
  await publish(server, 'a', 'one')
  const text = (await ask(server, '/metrics')).text
  t.match(text, /^ringside_store_bytes [1-9]/m)
  t.match(text, /^ringside_store_flush_seconds_count 1$/m)
  t.match(text, /^ringside_store_oldest_event_seconds 0?\.?\d/m)
})
