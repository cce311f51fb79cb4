import t, { type Test } from 'tap'
import { readSettings } from '../../src/config.ts'
import { Denied } from '../../src/problem.ts'
import { Tokens } from '../../src/access/tokens.ts'
import { ask, build, isProblem, metricsOf, type TestServer } from '../support/app.ts'
import { npmClient } from '../support/clients.ts'
import { HeldClock } from '../support/clock.ts'
import { getJson } from '../support/feeds.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe } from '../support/reader.ts'
import { bearer, KeyServer, tokenFor, tokenOf, type Answering, type Signing } from '../support/tokens.ts'

t.setTimeout(400_000)

const SSE = { accept: 'text/event-stream' }
const CLAIMS = { ringside: { subscribe: ['**'] } }

async function statusOf(server: TestServer, signing: Signing): Promise<number> {
  const { status } = await getJson(server, '/events/a', bearer(await tokenOf(CLAIMS, signing)))
  return status
}

/** Keys are fetched at the start, and again when one is missing; either takes a moment. */
function becomes(server: TestServer, signing: Signing, status: number) {
  return eventually(
    () => statusOf(server, signing),
    found => found === status,
    `${status} for the key ${signing.kid}`
  )
}

t.test('JWKS_URL: tokens of RS256, ES256 and EdDSA, each by its kid', async t => {
  const keys = await KeyServer.start(t)
  const signings = [await keys.add('r', 'RS256'), await keys.add('e', 'ES256'), await keys.add('d', 'EdDSA')]
  const server = await build(t, { JWKS_URL: keys.url })
  for (const signing of signings) await becomes(server, signing, 200)
  t.equal(keys.asked, 1, 'they are fetched once')

  const [first, second] = signings as [Signing, Signing]
  for (const wrong of [
    { ...first, kid: 'e' },
    { ...second, kid: 'r' },
    { ...second, key: (await new KeyServer().add('e')).key! },
    { key: 'a secret that nobody has told the server', alg: 'HS256', kid: 'r' }
  ]) {
    t.equal(await statusOf(server, wrong), 401)
  }
})

t.test('a token that does not name its key is tried with each of its kind', async t => {
  const keys = await KeyServer.start(t)
  const signings = [await keys.add(undefined), await keys.add(undefined), await keys.add(undefined)]
  const server = await build(t, { JWKS_URL: keys.url })
  for (const signing of signings) t.equal(await statusOf(server, signing), 200)
  t.equal(await statusOf(server, await new KeyServer().add(undefined)), 401)
})

t.test('keys rotate', async t => {
  const keys = await KeyServer.start(t)
  const old = await keys.add('old')
  const server = await build(t, { JWKS_URL: keys.url })
  await becomes(server, old, 200)
  const young = await keys.add('young')
  await becomes(server, young, 200)
  t.equal(await statusOf(server, old), 200, 'both are taken while both are there')
})

t.test('a key that was withdrawn is taken for ten minutes, and not longer', async t => {
  const keys = await KeyServer.start(t)
  const withdrawn = await keys.add('withdrawn')
  const clock = new HeldClock(Date.now())
  const tokens = new Tokens(readSettings({ JWKS_URL: keys.url }), clock, { warn: t.comment })
  const token = await tokenOf(CLAIMS, withdrawn)
  t.match(await tokens.read(token), { sub: 'alice' })
  const fetched = tokens.keysFetched!
  t.equal(fetched, clock.now(), 'when they were fetched is known')
  keys.clear()
  await keys.add('other')
  await clock.advance(599_000)
  t.match(await tokens.read(token), { sub: 'alice' })
  await clock.advance(1000)
  await eventually(
    () => tokens.read(token).catch((error: unknown) => error),
    answer => answer instanceof Denied && answer.reason === 'key',
    'the end of the key'
  )
  t.equal(tokens.keysFetched, fetched + 600_000)
})

t.test('nobody makes the server ask for keys as often as they like', async t => {
  const keys = await KeyServer.start(t)
  await becomes(await build(t, { JWKS_URL: keys.url }), await keys.add('a'), 200)
  const server = await build(t, { JWKS_URL: keys.url })
  const before = keys.asked
  const unknown = await Promise.all(
    Array.from({ length: 50 }, async (_, index) => ({ ...(await new KeyServer().add(`x${index}`)) }))
  )
  t.strictSame(await Promise.all(unknown.map(signing => statusOf(server, signing))), Array(50).fill(401))
  t.ok(keys.asked - before <= 2, `asked ${keys.asked - before} times`)
})

t.test('while keys can not be had', async t => {
  const keys = await KeyServer.start(t)
  const signing = await keys.add('a')
  await keys.down()
  const server = await build(t, { JWKS_URL: keys.url, RETRY: '50ms' })
  const token = await tokenOf(CLAIMS, signing)

  t.test('a token that can not be checked is 503', async t => {
    for (const [path, method] of [
      ['/events/a', 'GET'],
      ['/events/a', 'POST'],
      ['/dashboards', 'GET']
    ] as const) {
      const answer = await ask(server, path, { method, headers: bearer(token) })
      isProblem(t, answer, 503, /keys/)
      t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
    }
    const { status } = await ask(server, '/events/a', {
      method: 'POST',
      headers: { ...bearer(token), ...SSE }
    })
    t.equal(status, 503, 'who posts reads no stream')
  })

  t.test('an EventSource is told to come back, with its cursor', async t => {
    const stream = await subscribe(t, server, `/events/a?token=${token}`, {
      ...SSE,
      'last-event-id': '1700000000000-0'
    })
    t.equal(stream.status, 200)
    const [opened, goodbye, ...rest] = await stream.whole()
    t.match(opened, { id: '1700000000000-0', event: 'cursor' })
    t.match(goodbye, { event: 'goodbye', data: /"unavailable"/, retry: Number })
    t.strictSame(rest, [])
    const head = await ask(server, '/events/a', { method: 'HEAD', headers: { ...bearer(token), ...SSE } })
    t.equal(head.status, 200)
  })

  t.test('they are not asked for again and again', async t => {
    await keys.up()
    keys.answer = response => response.writeHead(503).end()
    const before = keys.asked
    const started = Date.now()
    for (let count = 0; count < 50; count++) t.equal(await statusOf(server, signing), 503)
    const seconds = (Date.now() - started) / 1000
    t.ok(keys.asked - before <= seconds + 1, `asked ${keys.asked - before} times in ${seconds} s`)
    keys.answer = null
    await keys.down()
  })

  t.test('what is wrong without a key is 401 all the same', async t => {
    t.equal((await ask(server, '/events/a')).status, 401)
    t.equal((await ask(server, '/events/a', { headers: bearer('nonsense') })).status, 401)
    t.equal((await ask(server, '/events/a', { headers: bearer(await tokenFor({})) })).status, 401, 'HS256')
  })

  t.test('it is counted', async t => {
    t.ok((await metricsOf(server)).get('ringside_auth_failures_total{reason="unavailable"}')! >= 6)
  })

  t.test('an EventSource comes back by itself, and is served when they can be had', async t => {
    const client = npmClient(t, `${server.url}/events/a?token=${token}`)
    await client.received.until(
      () => client.received.all.filter(({ type }) => type === 'goodbye').length >= 2,
      'goodbyes'
    )
    await keys.up()
    await client.received.until(() => client.received.all.at(-1)?.type === 'cursor', 'a stream')
    t.equal(await statusOf(server, signing), 200)
  })
})

t.test('keys that are there go on being taken while the key server', async t => {
  const keys = await KeyServer.start(t)
  const signing = await keys.add('a')
  const server = await build(t, { JWKS_URL: keys.url })
  await becomes(server, signing, 200)

  let sent = 0
  const ways: Record<string, Answering> = {
    'answers nothing': () => {},
    'answers 500': response => response.writeHead(500).end('{"keys":[]}'),
    'sends elsewhere': response => response.writeHead(302, { location: keys.url }).end(),
    'has a page to show': response => response.end('<!doctype html><title>Sign in</title>'),
    'has no keys any more': response => response.end('{"keys":[]}'),
    'has keys that are none': response => response.end('{"keys":{"kid":"b"}}'),
    'has null': response => response.end('null'),
    'breaks off': response => {
      response.writeHead(200, { 'content-length': 100 }).write('{"keys"')
      setImmediate(() => response.destroy())
    },
    'never comes to an end': response => {
      const more = () => {
        do sent += 65_536
        while (response.write(' '.repeat(65_536)))
      }
      response.on('drain', more)
      more()
    }
  }
  for (const [name, answer] of Object.entries(ways)) {
    t.test(name, async t => {
      const missing = await new KeyServer().add('b')
      const asked = keys.asked
      keys.answer = answer
      await eventually(
        () => statusOf(server, missing),
        status => status === 503 && keys.asked > asked,
        '503 for a key that is not there'
      )
      t.equal(await statusOf(server, signing), 200)
      keys.answer = null
    })
  }
  t.test('and not all is taken that it sends', async t => {
    t.ok(sent > 1_000_000 && sent < 30_000_000, `${sent} bytes`)
  })
})

t.test('a slow key server holds up nobody for long, and nobody else at all', async t => {
  const keys = await KeyServer.start(t)
  const signing = await keys.add('a')
  const server = await build(t, { JWKS_URL: keys.url })
  await becomes(server, signing, 200)
  const late = await keys.add('late')
  keys.answer = () => {}
  const asked = keys.asked
  const waiting = eventually(
    () => statusOf(server, late),
    status => status === 503,
    'the end of its patience'
  )
  await eventually(
    () => keys.asked,
    count => count > asked,
    'a fetch'
  )
  const many = Array.from({ length: 20 }, () => statusOf(server, late))
  t.equal(await statusOf(server, signing), 200, 'a key that is there is taken at once')
  t.ok((await ask(server, '/livez')).status === 200)
  t.strictSame(await Promise.all(many), Array(20).fill(503))
  t.equal(await waiting, 503)
  t.equal(keys.asked, asked + 1, 'all wait for one fetch')
})

t.test('a lying key server: keys that are none of ours', async t => {
  const keys = await KeyServer.start(t)
  const signing = await keys.add('a')
  const secret = 'c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA'
  const publish = (jwk: object) => {
    keys.answer = response => response.end(JSON.stringify({ keys: [jwk] }))
  }
  const serverWith = async (t: Test, jwk: object) => {
    publish(jwk)
    return build(t, { JWKS_URL: keys.url })
  }
  t.test('a secret', async t => {
    const server = await serverWith(t, { kty: 'oct', k: secret, kid: 'a', alg: 'HS256' })
    const forged = { key: Buffer.from(secret, 'base64url').toString(), alg: 'HS256', kid: 'a' }
    t.equal(await statusOf(server, forged), 401)
    t.equal(await statusOf(server, signing), 401)
  })
  for (const [name, jwk] of Object.entries({
    'half a key': { kty: 'EC', crv: 'P-256', x: 'AAAA', kid: 'a', alg: 'ES256' },
    'a point on no curve': { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43), kid: 'a' }
  })) {
    t.test(name, async t => {
      const server = await serverWith(t, jwk)
      t.equal(await statusOf(server, signing), 503)
      t.equal((await ask(server, '/livez')).status, 200)
    })
  }
  for (const [name, jwk] of Object.entries({
    'of another use': { kty: 'EC', crv: 'P-256', x: 'AAAA', y: 'AAAA', kid: 'a', use: 'enc' },
    'without a kind': { kid: 'a' },
    'no object': 7
  })) {
    t.test(name, async t => {
      const server = await serverWith(t, jwk as object)
      const status = await statusOf(server, signing)
      t.ok([401, 503].includes(status), `${status}`)
    })
  }
})

t.test('the server stops at once, also while it waits for keys', async t => {
  const keys = await KeyServer.start(t)
  keys.answer = () => {}
  const server = await build(t, { JWKS_URL: keys.url })
  const signing = await new KeyServer().add('a')
  const waiting = statusOf(server, signing).catch(() => 0)
  await eventually(
    () => keys.asked,
    count => count === 1,
    'a fetch'
  )
  await keys.down()
  await waiting
  await server.app.close()
  t.pass()
})

t.test('listeners stay while the key server is away', async t => {
  const keys = await KeyServer.start(t)
  const signing = await keys.add('a')
  const server = await build(t, { JWKS_URL: keys.url })
  await becomes(server, signing, 200)
  const stream = await listen(t, server, '/events/a', { ...SSE, ...bearer(await tokenOf(CLAIMS, signing)) })
  await keys.down()
  await server.app.ringside.publish('a', { data: 'still here' })
  t.match(await stream.next(), { data: 'still here' })
})
