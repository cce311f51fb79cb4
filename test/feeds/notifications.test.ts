import t from 'tap'
import { Notifications } from '../../src/feeds/notifications.ts'
import { buildShifted, eventsOf, expectStatus, getJson, send, type Where } from '../support/feeds.ts'
import { listen } from '../support/reader.ts'

t.setTimeout(60_000)

t.test('what has run out leaves the inbox and the count', async t => {
  const server = await buildShifted(t)
  const short = await notify(server, { title: 'short', ttl: 60 })
  const long = await notify(server, { title: 'long', ttl: 3600 })
  const forever = await notify(server, { title: 'forever' })
  t.strictSame(await inboxOf(server), { ids: [forever, long, short], unread: 3 })

  server.clock.advance(59_000)
  t.strictSame(await inboxOf(server), { ids: [forever, long, short], unread: 3 }, 'not before its time')
  server.clock.advance(2000)
  t.strictSame(await inboxOf(server), { ids: [forever, long], unread: 2 })
  for (const [method, path] of [
    ['POST', `/notifications/${short}/read`],
    ['DELETE', `/notifications/${short}`]
  ] as const) {
    t.equal((await send(server, method, `${path}?user=alice`)).status, 404)
  }

  const tab = await listen(t, server, '/notifications?user=alice&rewind=10')
  await tab.frames.until(() => eventsOf(tab.frames.all).length === 3, 'all that is left')
  t.strictSame(
    eventsOf(tab.frames.all).map(({ event, id, data }) => (event === 'unread' ? data : id)),
    ['{"unread":2}', long, forever],
    'it is not replayed either, and that is no gap'
  )

  server.clock.advance(3_600_000)
  t.strictSame(await inboxOf(server), { ids: [forever], unread: 1 })
  const read = await send(server, 'POST', `/notifications/${forever}/read?user=alice`)
  t.strictSame(read.json(), { unread: 0 })
  t.strictSame(await inboxOf(server), { ids: [forever], unread: 0 })
})

t.test('one outlives the ring that its event was in', async t => {
  const server = await buildShifted(t, { RING_TTL: '1m' })
  const id = await notify(server, { title: 'old' })
  server.clock.advance(3_600_000)
  t.strictSame(await inboxOf(server), { ids: [id], unread: 1 })
  t.strictSame((await send(server, 'POST', `/notifications/${id}/read?user=alice`)).json(), { unread: 0 })
})

t.test('an empty inbox is no state', async t => {
  const server = await buildShifted(t)
  const { log } = server.app.ringside.broker
  const id = await notify(server, { title: 'x' })
  t.ok(await log.state('notifications/alice'))
  t.strictSame((await send(server, 'DELETE', `/notifications/${id}?user=alice`)).json(), { unread: 0 })
  t.equal(await log.state('notifications/alice'), null)
  t.strictSame(await inboxOf(server), { ids: [], unread: 0 })
  const next = await notify(server, { title: 'y' })
  t.strictSame(await inboxOf(server), { ids: [next], unread: 1 })
})

t.test('an inbox is bounded in bytes: the oldest go first', async t => {
  const server = await buildShifted(t, { MAX_EVENT_BYTES: '1 MiB' })
  const { log } = server.app.ringside.broker
  const ids: string[] = []
  for (let count = 0; count < 10; count++)
    ids.unshift(await notify(server, { title: 'x', body: 'é'.repeat(25_000) }))
  t.strictSame(await inboxOf(server), { ids: ids.slice(0, 5), unread: 5 })
  t.ok(Buffer.byteLength((await log.state('notifications/alice'))!.value) <= 262_144)
  const large = await notify(server, { title: 'x', body: 'x'.repeat(300_000) })
  t.strictSame(await inboxOf(server), { ids: [large], unread: 1 }, 'one that is larger stays alone')
})

t.test('many users are sent to in turns', async t => {
  const { app, clock } = await buildShifted(t)
  const { broker, publisher } = app.ringside
  const notifications = new Notifications(broker.log, publisher, clock)
  let turns = 0
  let isOver = false
  const count = () => {
    turns++
    if (!isOver) setImmediate(count)
  }
  const users = Array.from({ length: 300 }, (_, index) => `user-${index}`)
  for (let round = 0; round < 4; round++) {
    if (round === 3) setImmediate(count)
    await notifications.send(users, { title: 'x', body: 'x'.repeat(55_000), priority: 'normal' })
  }
  isOver = true
  t.ok(turns > 5, `${turns} turns`)
})

async function notify(server: Where, message: object): Promise<string> {
  const answer = await expectStatus(201, send(server, 'POST', '/notifications', { to: 'alice', ...message }))
  return (answer.json()['ids'] as { alice: string }).alice
}

async function inboxOf(server: Where): Promise<{ ids: string[]; unread: number }> {
  const answer = await expectStatus(200, getJson(server, '/notifications?user=alice'))
  const { notifications, unread } = answer.json() as { notifications: { id: string }[]; unread: number }
  return { ids: notifications.map(({ id }) => id), unread }
}
