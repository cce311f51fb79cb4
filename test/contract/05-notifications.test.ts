import t, { type Test } from 'tap'
import { ask, build, isProblem, post } from '../support/app.ts'
import { eventsOf, expectStatus, getJson, send, type Where } from '../support/feeds.ts'
import { listen, type Reader } from '../support/reader.ts'

const ID = /^\d+-\d+$/

interface Inbox {
  readonly notifications: readonly { readonly id: string; readonly title: string; readonly read: boolean }[]
  readonly unread: number
  readonly cursor: string
}

t.setTimeout(400_000)

t.test('POST /notifications', async t => {
  const server = await build(t)

  t.test('sends to one, who finds it in the inbox and on the stream', async t => {
    const alice = await tab(t, server, 'alice')
    const message = {
      title: 'Hello',
      body: 'World',
      url: 'https://example.org/',
      priority: 'high',
      tags: ['a', 'b']
    }
    const answer = await send(server, 'POST', '/notifications', { to: 'alice', ...message, ttl: 3600 })
    t.equal(answer.status, 201)
    const { ids } = answer.json() as { ids: Record<string, string> }
    t.strictSame(Object.keys(ids), ['alice'])
    const id = ids['alice']!
    t.match(id, ID)
    const [event] = await told(alice, 1)
    t.equal(event!.id, id)
    t.equal(event!.event, 'notification')
    t.match(JSON.parse(event!.data!), message)
    const inbox = await getJson(server, '/notifications?user=alice')
    t.equal(inbox.headers['content-type'], 'application/json; charset=utf-8')
    t.strictSame(inbox.json()['notifications'], [
      { ...message, id, time: Number(id.split('-')[0]), read: false }
    ])
    t.equal(inbox.json()['unread'], 1)
    t.match(inbox.json()['cursor'], ID)
  })

  t.test('sends to 1000, each an id of its own', async t => {
    const to = Array.from({ length: 1000 }, (_, index) => `user-${index}`)
    const ids = await notify(server, to, 'to all')
    t.strictSame(Object.keys(ids).sort(), [...to].sort())
    t.equal(new Set(Object.values(ids)).size, 1000)
    for (const user of ['user-0', 'user-999']) {
      t.match(await inboxOf(server, user), { notifications: [{ id: ids[user], title: 'to all' }], unread: 1 })
    }
    t.strictSame(Object.keys(await notify(server, ['twice', 'twice'], 'once')), ['twice'])
    t.equal((await inboxOf(server, 'twice')).unread, 1)
    const proto = await notify(server, ['__proto__', 'constructor'], 'any name')
    t.strictSame(Object.keys(proto), ['__proto__', 'constructor'])
  })

  t.test('knows four priorities', async t => {
    for (const priority of ['low', 'normal', 'high', 'urgent']) {
      await expectStatus(201, send(server, 'POST', '/notifications', { to: 'p', title: 't', priority }))
      t.match(await inboxOf(server, 'p'), { notifications: [{ priority }] })
    }
    await notify(server, ['p'], 'none given')
    t.match(await inboxOf(server, 'p'), { notifications: [{ priority: 'normal' }] })
  })

  t.test('links by http, https or relatively', async () => {
    for (const url of [
      'https://a.example/b?c#d',
      'HTTP://a',
      '/jobs/7',
      '7/8:9',
      '?q=a:b',
      '#x',
      '//a/b',
      ''
    ])
      await expectStatus(201, send(server, 'POST', '/notifications', { to: 'linked', title: 't', url }))
  })

  t.test('refuses what is wrong, and stores none of it', async t => {
    const right = { to: 'nobody', title: 't' }
    const wrong: [object, RegExp][] = [
      [{ title: 't' }, /to/],
      [{ to: 'nobody' }, /title/],
      [{ ...right, title: 1 }, /title/],
      [{ ...right, title: '' }, /title/],
      [{ ...right, priority: 'asap' }, /priority/],
      [{ ...right, ttl: 0 }, /ttl/],
      [{ ...right, ttl: 1.5 }, /ttl/],
      [{ ...right, tags: 'a' }, /tags/],
      [{ ...right, body: {} }, /body/],
      ...SCRIPTS.map((url): [object, RegExp] => [{ ...right, url }, /^\/url: .*http/]),
      [{ ...right, more: 1 }, /more/],
      [{ ...right, to: [] }, /to/],
      [{ ...right, to: ['nobody', ''] }, /to\/1/],
      [{ ...right, to: ['nobody', 'a/b'] }, /to\/1/],
      [{ ...right, to: '*' }, /to/],
      [{ ...right, to: Array.from({ length: 1001 }, (_, index) => `n${index}`) }, /to/]
    ]
    for (const [body, says] of wrong) {
      isProblem(t, await send(server, 'POST', '/notifications', body), 400, says)
    }
    isProblem(t, await send(server, 'POST', '/notifications', '{'), 400, /not JSON/)
    isProblem(t, await post(server, '/notifications', '{}'), 415, /json/)
    isProblem(
      t,
      await send(server, 'POST', '/notifications', { ...right, body: 'x'.repeat(61_440) }),
      413,
      /^a notification of \d+ bytes; at most 61440 are allowed \(MAX_EVENT_BYTES\)$/
    )
    isProblem(t, await post(server, '/events/notifications/nobody', '{}'), 403, /notifications/)
    t.match(await inboxOf(server, 'nobody'), { notifications: [], unread: 0 })
    t.equal((await inboxOf(server, 'nobody')).notifications.length, 0)
  })

  t.test('Idempotency-Key: sent again, it is not sent twice', async t => {
    const key = { 'idempotency-key': 'once' }
    const body = { to: ['carol', 'dave'], title: 'once' }
    const first = await expectStatus(201, send(server, 'POST', '/notifications', body, key))
    t.notOk('idempotent-replayed' in first.headers)
    await notify(server, ['carol'], 'between')
    const again = await expectStatus(201, send(server, 'POST', '/notifications', body, key))
    t.equal(again.headers['idempotent-replayed'], 'true')
    t.strictSame(again.json(), first.json())
    t.strictSame(titles(await inboxOf(server, 'carol')), ['between', 'once'])
    t.strictSame(titles(await inboxOf(server, 'dave')), ['once'])
    const other = { ...body, title: 'other' }
    isProblem(t, await send(server, 'POST', '/notifications', other, key), 422, /Idempotency-Key/)
  })
})

t.test('the inbox is newest first', async t => {
  const server = await build(t)
  t.match(await inboxOf(server, 'alice'), { notifications: [], unread: 0, cursor: ID })
  for (const title of ['1', '2', '3']) await notify(server, ['alice'], title)
  t.strictSame(titles(await inboxOf(server, 'alice')), ['3', '2', '1'])
  isProblem(t, await getJson(server, '/notifications'), 400, /user/)
  isProblem(t, await getJson(server, '/notifications?user=a/b'), 400, /user/)
})

t.test('what one tab does, the others are told', async t => {
  const server = await build(t)
  const ids: string[] = []
  for (const title of ['1', '2', '3', '4']) ids.push((await notify(server, ['alice'], title))['alice']!)
  const second = await tab(t, server, 'alice')
  t.match(eventsOf(second.frames.all)[0], { event: 'unread', data: '{"unread":4}' })
  t.ok(eventsOf(second.frames.all)[0]!.id! >= ids[3]!, 'a cursor behind all that are counted')

  t.test('one is read', async t => {
    const answer = await send(server, 'POST', `/notifications/${ids[1]}/read?user=alice`)
    t.strictSame([answer.status, answer.json()], [200, { unread: 3 }])
    t.strictSame(dataOf(await told(second, 1), 'read'), [{ ids: [ids[1]], unread: 3 }])
    const { notifications, unread } = await inboxOf(server, 'alice')
    t.strictSame(
      notifications.map(({ id, read }) => [id, read]),
      [3, 2, 1, 0].map(index => [ids[index], index === 1])
    )
    t.equal(unread, 3)
  })

  t.test('read again, it is no news', async t => {
    const answer = await send(server, 'POST', `/notifications/${ids[1]}/read?user=alice`)
    t.strictSame([answer.status, answer.json()], [200, { unread: 3 }])
  })

  t.test('some are read; what is not there counts for nothing', async t => {
    const some = { ids: [ids[0], ids[2], 'nonsense', '1-1'] }
    const answer = await send(server, 'POST', '/notifications/read?user=alice', some)
    t.strictSame([answer.status, answer.json()], [200, { unread: 1 }])
    t.strictSame(dataOf(await told(second, 2), 'read').at(-1), { ids: [ids[0], ids[2]], unread: 1 })
    t.equal(second.messages.filter(({ event }) => event === 'read').length, 2)
  })

  t.test('one is deleted: hidden, and told', async t => {
    const answer = await send(server, 'DELETE', `/notifications/${ids[3]}?user=alice`)
    t.equal(answer.status, 200)
    t.strictSame(dataOf(await told(second, 3), 'deleted'), [{ ids: [ids[3]], unread: 0 }])
    t.strictSame(titles(await inboxOf(server, 'alice')), ['3', '2', '1'])
    isProblem(t, await send(server, 'DELETE', `/notifications/${ids[3]}?user=alice`), 404, /notification/)
    const read = await send(server, 'POST', `/notifications/${ids[3]}/read?user=alice`)
    isProblem(t, read, 404, /notification/)
  })

  t.test('all are read', async t => {
    for (const title of ['5', '6']) await notify(server, ['alice'], title)
    const answer = await send(server, 'POST', '/notifications/read?user=alice', { all: true })
    t.strictSame([answer.status, answer.json()], [200, { unread: 0 }])
    t.strictSame(dataOf(await told(second, 6), 'read').at(-1), { all: true, unread: 0 })
    const { notifications, unread } = await inboxOf(server, 'alice')
    t.ok(notifications.every(({ read }) => read))
    t.equal(unread, 0)
  })

  t.test('every event has an id, and a tab that was away gets what it missed', async t => {
    const events = eventsOf(second.frames.all).slice(1)
    t.ok(events.every(({ id }) => ID.test(id!)))
    const away = await listen(t, server, '/notifications?user=alice', {
      accept: 'text/event-stream',
      'last-event-id': events[0]!.id!
    })
    t.strictSame(await told(away, events.length - 1), events.slice(1))
    t.match(eventsOf(away.frames.all)[0], { event: 'unread', data: '{"unread":0}' })
  })

  t.test('a selection that is none is refused', async t => {
    for (const body of [
      '{}',
      '{"all":false}',
      '{"ids":[]}',
      '{"ids":"1-0"}',
      '{"ids":["1-0"],"all":true}',
      '[]'
    ]) {
      const answer = await send(server, 'POST', '/notifications/read?user=alice', body)
      isProblem(t, answer, 400, /./)
    }
    for (const id of ['nonsense', '1-1', '%20']) {
      isProblem(t, await send(server, 'POST', `/notifications/${id}/read?user=alice`), 404, /notification/)
      isProblem(t, await send(server, 'DELETE', `/notifications/${id}?user=alice`), 404, /notification/)
    }
  })
})

t.test('the cursor of the inbox: what comes after it is on the stream', async t => {
  const server = await build(t)
  await notify(server, ['alice'], 'in the inbox')
  const { cursor } = await inboxOf(server, 'alice')
  await notify(server, ['alice'], 'after it')
  const reader = await listen(t, server, `/notifications?user=alice&after=${cursor}`)
  t.match(eventsOf(reader.frames.all)[0], { event: 'unread', data: '{"unread":2}' })
  const [missed] = await told(reader, 1)
  t.match(JSON.parse(missed!.data!), { title: 'after it' })
})

t.test("nobody sees or marks another's", async t => {
  const server = await build(t)
  const [alice, bob] = [await tab(t, server, 'alice'), await tab(t, server, 'bob')]
  const ids = await notify(server, ['bob'], "bob's")
  await told(bob, 1)
  const id = ids['bob']!
  t.match(await inboxOf(server, 'alice'), { notifications: [], unread: 0 })
  t.equal((await inboxOf(server, 'alice')).notifications.length, 0)
  isProblem(t, await send(server, 'POST', `/notifications/${id}/read?user=alice`), 404, /notification/)
  isProblem(t, await send(server, 'DELETE', `/notifications/${id}?user=alice`), 404, /notification/)
  for (const selection of [{ ids: [id] }, { all: true }]) {
    t.equal((await send(server, 'POST', '/notifications/read?user=alice', selection)).status, 200)
  }
  t.match(await inboxOf(server, 'bob'), { notifications: [{ id, read: false }], unread: 1 })
  await notify(server, ['alice', 'bob'], 'both')
  await told(bob, 2)
  await told(alice, 1)
  t.strictSame(
    eventsOf(alice.frames.all).map(({ event }) => event),
    ['unread', 'notification']
  )
  t.strictSame(
    eventsOf(bob.frames.all).map(({ event }) => event),
    ['unread', 'notification', 'notification']
  )
})

t.test('of many changes at once none is lost', async t => {
  const server = await build(t)
  const sent = await Promise.all(
    Array.from({ length: 60 }, (_, index) => notify(server, ['alice'], String(index)))
  )
  const ids = sent.map(each => each['alice']!)
  t.strictSame(new Set((await inboxOf(server, 'alice')).notifications.map(({ id }) => id)), new Set(ids))
  await Promise.all([
    ...ids.slice(0, 20).map(id => send(server, 'POST', `/notifications/${id}/read?user=alice`)),
    ...ids.slice(20, 40).map(id => send(server, 'DELETE', `/notifications/${id}?user=alice`)),
    ...Array.from({ length: 10 }, (_, index) => notify(server, ['alice'], `late ${index}`))
  ])
  const { notifications, unread } = await inboxOf(server, 'alice')
  t.equal(notifications.length, 50)
  t.equal(unread, 30)
  t.strictSame(
    new Set(notifications.filter(({ read }) => read).map(({ id }) => id)),
    new Set(ids.slice(0, 20))
  )
})

t.test('HEAD gives the headers of the stream', async t => {
  const server = await build(t)
  const head = await ask(server, '/notifications?user=alice', { method: 'HEAD' })
  t.equal(head.status, 200)
  t.equal(head.headers['content-type'], 'text/event-stream; charset=utf-8')
})

/** What a browser would not go to, or would run; it drops what is blank before it, and line ends within. */
const SCRIPTS = [
  'javascript:alert(1)',
  ' \u0001\tJavaScript:alert(1)',
  'java\nscript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'vbscript:x',
  'file:///etc/passwd',
  'http://[',
  'jobs:7'
]

async function notify(server: Where, to: readonly string[], title: string): Promise<Record<string, string>> {
  const answer = await expectStatus(201, send(server, 'POST', '/notifications', { to, title }))
  return answer.json()['ids'] as Record<string, string>
}

async function inboxOf(server: Where, user: string): Promise<Inbox> {
  const answer = await expectStatus(200, getJson(server, `/notifications?user=${user}`))
  return answer.json() as unknown as Inbox
}

/** A stream of a user that has said how many are unread. */
async function tab(t: Test, server: Where, user: string): Promise<Reader> {
  const reader = await listen(t, server, `/notifications?user=${user}`)
  await reader.first('unread')
  return reader
}

/** The first `count` events after `unread`. */
async function told(reader: Reader, count: number) {
  await reader.frames.until(() => eventsOf(reader.frames.all).length > count, `${count} events`)
  return eventsOf(reader.frames.all).slice(1, count + 1)
}

function dataOf(frames: readonly { event?: string; data?: string }[], type: string): unknown[] {
  return frames.flatMap(({ event, data }) => (event === type ? [JSON.parse(data!) as unknown] : []))
}

function titles({ notifications }: Inbox): string[] {
  return notifications.map(({ title }) => title)
}
