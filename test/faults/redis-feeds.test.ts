/** The feeds on more than one instance: what one is told, the others know. */
import t from 'tap'
import { post, type TestServer } from '../support/app.ts'
import {
  buildShifted,
  canonical,
  eventsOf,
  expectStatus,
  follow,
  getJson,
  send,
  versionIn,
  type Where
} from '../support/feeds.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import { instances, ready, redisFor } from '../support/redis-system.ts'

const USERS = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi']

t.setTimeout(400_000)

for (const SHARDS of ['1', '4']) {
  t.test(`with ${SHARDS} shards`, async t => {
    const redis = await redisFor(t)
    const [a, b] = (await instances(t, redis.url, 2, { SHARDS })) as [TestServer, TestServer]
    const other = (index: number) => (index % 2 === 0 ? a : b)

    t.test('writers that patch one dashboard over both instances at once lose nothing', async t => {
      await put(a, 'shared', { n: 0 })
      const pages = await Promise.all([a, b].map(server => subscribe(t, server, '/dashboards/shared')))
      await Promise.all(pages.map(page => page.first('cursor')))
      const names = Array.from({ length: 60 }, (_, index) => `n${index}`)
      const versions = await Promise.all(
        names.map((name, index) => patch(other(index), 'shared', { [name]: index, last: name }))
      )
      t.equal(new Set(versions).size, 60)
      const got = await expectStatus(200, getJson(a, '/dashboards/shared'))
      const { last, n, ...members } = got.json()
      t.equal(n, 0)
      t.strictSame(members, Object.fromEntries(names.map((name, index) => [name, index])))
      const version = versionIn(got)
      t.equal(last, names[versions.indexOf(version)])
      t.equal((await getJson(b, '/dashboards/shared')).headers.etag, got.headers.etag)
      for (const page of pages) {
        const patches = () => eventsOf(page.frames.all).filter(({ event }) => event === 'patch')
        await page.frames.until(() => patches().length === 60, 'all patches')
        t.equal(heldBy(page), canonical(got.text))
        t.equal(eventsOf(page.frames.all).length, 61, 'a snapshot, and each patch once')
      }
    })

    t.test('If-Match is true across instances', async t => {
      const etag = `"${await put(a, 'matched', { n: 0 })}"`
      const answers = await Promise.all(
        Array.from({ length: 10 }, (_, n) =>
          send(other(n), 'PATCH', '/dashboards/matched', { n }, { 'if-match': etag })
        )
      )
      t.strictSame(answers.map(({ status }) => status).sort(), [200, ...Array<number>(9).fill(412)])
      const winner = answers.find(({ status }) => status === 200)!
      t.equal((await getJson(b, '/dashboards/matched')).headers.etag, winner.headers.etag)
    })

    t.test('the version of an ETag leads on at the other instance', async t => {
      // in several shards, each with a position of its own
      for (const id of USERS) {
        await put(a, id, { n: 0 })
        const after = versionIn(await expectStatus(200, getJson(a, `/dashboards/${id}`)))
        t.match(after, /^[A-Za-z0-9._~-]{1,128}$/)
        await patch(a, id, { n: 1 })
        const readers = [
          await subscribe(t, b, `/dashboards/${id}?after=${after}`),
          await listen(t, b, `/events/dashboards/${id}?after=${after}`)
        ]
        await patch(b, id, { n: 2 })
        for (const reader of readers) {
          await reader.frames.until(() => eventsOf(reader.frames.all).length >= 2, 'both patches')
          t.strictSame(
            eventsOf(reader.frames.all).map(({ event, data }) => [event, data]),
            [
              ['patch', '{"n":1}'],
              ['patch', '{"n":2}']
            ],
            `${id}: no snapshot, no gap`
          )
        }
      }
    })

    t.test('a dashboard that is ended at one is ended at the other', async t => {
      await put(a, 'ended', { n: 0 })
      const page = await subscribe(t, b, '/dashboards/ended')
      await page.first('cursor')
      t.equal((await send(a, 'DELETE', '/dashboards/ended')).status, 204)
      await page.first('deleted')
      t.equal((await getJson(b, '/dashboards/ended')).status, 404)
      t.equal((await send(b, 'PUT', '/dashboards/ended', { again: 1 })).status, 201)
      await page.frames.until(() => eventsOf(page.frames.all).length === 3, 'the new one')
      t.equal(heldBy(page), canonical('{"again":1}'))
    })

    t.test('what is read or deleted at one is told and true at the other', async t => {
      const ids = await notify(a, USERS, 'first')
      const more = await notify(b, USERS, 'second')
      for (const user of USERS) {
        const tab = await listen(t, b, `/notifications?user=${user}`)
        t.match(await tab.first('unread'), { data: '{"unread":2}' })
        const read = await send(a, 'POST', `/notifications/${ids[user]}/read?user=${user}`)
        t.strictSame([read.status, read.json()], [200, { unread: 1 }])
        t.match(await tab.first('read'), { data: JSON.stringify({ ids: [ids[user]], unread: 1 }) })
        const deleted = await send(a, 'DELETE', `/notifications/${more[user]}?user=${user}`)
        t.equal(deleted.status, 200)
        t.match(await tab.first('deleted'), { data: JSON.stringify({ ids: [more[user]], unread: 0 }) })
        t.match((await getJson(b, `/notifications?user=${user}`)).json(), {
          notifications: [{ id: ids[user], title: 'first', read: true }],
          unread: 0
        })
        tab.close()
      }
    })

    t.test('the id that a stream shows is one to read and delete by', async t => {
      for (const user of USERS) {
        const tab = await listen(t, b, `/notifications?user=${user}`)
        const before = ((await getJson(a, `/notifications?user=${user}`)).json()['unread'] as number) + 1
        const sent = await notify(a, [user], 'live')
        const { id, data } = await tab.first('notification')
        // what it is called in the inbox and in `read`, it is called here
        t.equal((JSON.parse(data!) as { id?: string }).id ?? id, sent[user])
        t.match((await getJson(b, `/notifications?user=${user}`)).json(), {
          notifications: [{ id: sent[user] }]
        })
        const path = `/notifications/${id}`
        t.strictSame(
          (await send(a, 'POST', `${path}/read?user=${user}`)).json(),
          { unread: before - 1 },
          user
        )
        t.equal((await send(b, 'DELETE', `${path}?user=${user}`)).status, 200)
        tab.close()
      }
    })

    t.test('the latest quote of each symbol comes first, whoever published it', async t => {
      const quotes = USERS.map((symbol, price) => ({ symbol, price }))
      await Promise.all(quotes.map((quote, index) => send(other(index), 'POST', '/tickers', quote)))
      for (const server of [a, b]) {
        const reader = await listen(t, server, '/tickers?symbols=*')
        const got = await reader.until(USERS.length)
        t.strictSame(got.map(({ data }) => JSON.parse(data!) as { symbol: string }).sort(bySymbol), quotes)
        const { quotes: latest, cursor } = (await getJson(server, '/tickers?symbols=*')).json()
        t.strictSame((latest as { symbol: string }[]).sort(bySymbol), quotes)
        await send(other(quotes.length), 'POST', '/tickers', { symbol: 'alice', price: 100 })
        const next = await listen(t, server, `/tickers?symbols=*&after=${cursor as string}`)
        t.strictSame(
          (await next.until(1)).map(({ data }) => data),
          ['{"symbol":"alice","price":100}']
        )
        await send(a, 'POST', '/tickers', quotes[0])
      }
    })

    t.test('of notifications that are sent over both at once none is lost', async t => {
      const sent = await Promise.all(
        Array.from({ length: 40 }, (_, index) => notify(other(index), ['zoe'], String(index)))
      )
      const { notifications, unread } = (await getJson(b, '/notifications?user=zoe')).json() as {
        notifications: { id: string }[]
        unread: number
      }
      t.equal(unread, 40)
      t.strictSame(new Set(notifications.map(({ id }) => id)), new Set(sent.map(ids => ids['zoe'])))
    })
  })
}

async function put(server: Where, id: string, document: object): Promise<string> {
  return versionIn(await expectStatus(201, send(server, 'PUT', `/dashboards/${id}`, document)))
}

async function patch(server: Where, id: string, document: object): Promise<string> {
  return versionIn(await expectStatus(200, send(server, 'PATCH', `/dashboards/${id}`, document)))
}

async function notify(server: Where, to: readonly string[], title: string): Promise<Record<string, string>> {
  const answer = await expectStatus(201, send(server, 'POST', '/notifications', { to, title }))
  return answer.json()['ids'] as Record<string, string>
}

/** What a page holds that has been told all this. */
function heldBy({ frames }: Reader): string | undefined {
  return [...follow(frames.all).values()].at(-1)
}

function bySymbol(a: { symbol: string }, b: { symbol: string }): number {
  return a.symbol < b.symbol ? -1 : 1
}

t.test('with several shards, a key that has been forgotten names another notification', async t => {
  const redis = await redisFor(t)
  const server = await buildShifted(t, { REDIS_URL: redis.url, SHARDS: '4' })
  await ready(server)
  const send = async () => {
    const answer = await post(server, '/notifications', JSON.stringify({ to: 'alice', title: 'x' }), {
      'content-type': 'application/json',
      'idempotency-key': 'again'
    })
    t.equal(answer.status, 201, answer.text)
    return (answer.json()['ids'] as Record<string, string>)['alice']
  }
  const first = await send()
  t.equal(await send(), first, 'the same one')
  // what happens after ten minutes
  server.clock.advance(601_000)
  const [key] = (await redis.command('KEYS', '*:kept:*')) as string[]
  await redis.command('DEL', key!)
  const second = await send()
  t.not(second, first)
  const inbox = (await getJson(server, '/notifications?user=alice')).json()['notifications'] as {
    id: string
  }[]
  t.strictSame(
    inbox.map(({ id }) => id),
    [second, first]
  )
})
