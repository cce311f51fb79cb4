import t from 'tap'
import { ask, isProblem, metricsOf, post } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { serve } from '../support/process.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'

const SSE = { accept: 'text/event-stream' }

// a real process, whose descriptors run out
t.setTimeout(400_000)

t.test('a process with 256 descriptors', async t => {
  const server = await serve(t, { RETRY: '20ms' }, 256)
  const streams: Reader[] = []
  // of the whole test: those of a part end with it
  const open = () => listen(t, server, '/events/a')

  t.test('says what it has room for', async t => {
    t.match(server.stdout(), /Room +for 128 streams, and 192 sockets in all/)
  })

  t.test('serves so many streams, and turns the others away politely', async t => {
    for (let count = 0; count < 128; count++) streams.push(await open())
    const [goodbye] = await (await subscribe(t, server, '/events/a', SSE)).whole()
    t.match(goodbye, { event: 'goodbye', data: /full/ })
    isProblem(t, await ask(server, '/events/a', { headers: { accept: '*/*' } }), 503, /all connections/)
    t.equal((await post(server, '/events/a', 'still')).status, 201)
  })

  t.test('lives on when there are more connections than it has descriptors', async t => {
    const silent = Array.from({ length: 400 }, () => rawConnection(t, server))
    const { status } = await eventually(
      () => post(server, '/events/a', 'through').catch(() => ({ status: 0 })),
      answer => answer.status === 201,
      'a publish'
    )
    t.equal(status, 201)
    for (const stream of streams) t.match((await stream.until(2))[1], { data: 'through' })
    for (const connection of silent) connection.destroy()
    const metrics = await eventually(
      () => metricsOf(server).catch(() => null),
      all => all !== null,
      'the metrics'
    )
    t.ok(metrics!.get('ringside_connections_rejected_total{reason="sockets"}')! > 200)
    t.equal(metrics!.get('ringside_connections{transport="sse"}'), 128)
  })

  t.test('serves the next one as soon as one has gone', async t => {
    streams.pop()!.close()
    const { stream } = await eventually(
      async () => {
        const reader = await subscribe(t, server, '/events/a', SSE)
        return { stream: reader, first: await reader.next() }
      },
      ({ first }) => first.event === 'cursor',
      'a place'
    )
    await post(server, '/events/a', 'x')
    t.match(await stream.next(), { data: 'x' })
    t.equal(server.stderr(), '')
  })
})

t.test('MAX_CONNECTIONS for which there are too few descriptors is told at the start', async t => {
  const server = await serve(t, { MAX_CONNECTIONS: '5000' }, 256)
  await eventually(
    () => server.stderr(),
    text => /"level":40,.*MAX_CONNECTIONS=5000: .*ulimit/.test(text),
    'a line'
  )
  t.match(server.stdout(), /5000 streams, and 192 sockets/)
})
