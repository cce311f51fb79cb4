import { createHmac, generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { connect, type OutgoingHttpHeaders } from 'node:http2'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { ConfigError, createServer, readSettings } from '../../src/index.ts'
import { ask, build, isProblem, metricsOf, post, type Answer, type Ask } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { getJson, send } from '../support/feeds.ts'
import { exitOf, serve } from '../support/process.ts'
import { rawConnection } from '../support/raw.ts'
import { listen } from '../support/reader.ts'
import { bearer, makeKeys, publicPem, SECRET, secondsFromNow, tokenFor, tokenOf } from '../support/tokens.ts'
import { connect as connectWs } from '../support/websocket.ts'

t.setTimeout(400_000)

const JWT = { JWT_SECRET: SECRET }
const EVERYTHING = { subscribe: ['**'], publish: ['**'] }
const JSON_TYPE = { 'content-type': 'application/json' }
const PAGE = 'https://page.example'

/** Every route that asks who comes. */
const CLOSED: readonly (readonly [method: string, path: string, body?: unknown])[] = [
  ['GET', '/events/a'],
  ['HEAD', '/events/a'],
  ['GET', '/events?topic=a&topic=b'],
  ['POST', '/events/a', 'x'],
  ['POST', '/events', [{ topic: 'a', data: 1 }]],
  ['GET', '/tickers?symbols=AAPL'],
  ['POST', '/tickers', { symbol: 'AAPL', price: 1 }],
  ['GET', '/dashboards'],
  ['GET', '/dashboards/ops'],
  ['PUT', '/dashboards/ops', {}],
  ['PATCH', '/dashboards/ops', {}],
  ['DELETE', '/dashboards/ops'],
  ['GET', '/notifications'],
  ['GET', '/notifications?user=alice'],
  ['POST', '/notifications', { to: 'alice', title: 'x' }],
  ['POST', '/notifications/read', { all: true }],
  ['POST', '/notifications/1-0/read'],
  ['DELETE', '/notifications/1-0']
]

// --- how a token comes ---

t.test('a token comes as Authorization: Bearer, as the cookie ringside_token, or as ?token=', async t => {
  const server = await build(t, JWT)
  const token = await tokenFor({ subscribe: ['a'] })

  t.test('as each of them', async t => {
    for (const headers of [
      bearer(token),
      { authorization: `bearer ${token}` },
      { authorization: `BEARER   ${token}` },
      { cookie: `ringside_token=${token}` },
      { cookie: `theme=dark; ringside_token=${token}; lang=en` },
      { cookie: `__Host-ringside_token=${token}` },
      { cookie: `ringside_token=nonsense; __Host-ringside_token=${token}` }
    ]) {
      const stream = await listen(t, server, '/events/a', { accept: 'text/event-stream', ...headers })
      stream.close()
    }
    const stream = await listen(t, server, `/events/a?token=${token}`)
    stream.close()
  })

  t.test('a wrong one is 401, never passed over for the next', async t => {
    const query = `?token=${token}`
    const cookie = `ringside_token=${token}`
    for (const [headers, path] of [
      [{ cookie: `__Host-ringside_token=nonsense; ${cookie}` }, ''],
      [{ authorization: 'Bearer nonsense', cookie }, query],
      [{ authorization: 'Bearer', cookie }, query],
      [{ authorization: '', cookie }, query],
      [{ authorization: `Basic ${token}`, cookie }, query],
      [{ authorization: `Bearer ${token} ${token}`, cookie }, query],
      [{ authorization: token, cookie }, query],
      [{ cookie: 'ringside_token=nonsense' }, query],
      [{}, '?token=nonsense'],
      [{}, `?token=${token}&token=${token}`]
    ] as const) {
      isInvalid(t, await ask(server, `/events/a${path}`, { headers }), /./)
    }
  })

  t.test('a cookie or a query without a value is none', async t => {
    const stream = await listen(t, server, `/events/a?token=${token}`, { cookie: 'ringside_token=' })
    stream.close()
    isMissing(t, await ask(server, '/events/a?token='))
  })
})

t.test('without a token', async t => {
  const server = await build(t, JWT)

  t.test('every route but the open ones is 401, and says how to come in', async t => {
    for (const request of CLOSED) {
      isMissing(t, await attempt(server, request), request.join(' '))
    }
    isMissing(t, await ask(server, '/events/a', { headers: { accept: 'text/event-stream' } }))
  })

  t.test('pages, the description, metrics and health are open, also to a token that is wrong', async t => {
    for (const path of ['/', '/docs/', '/openapi.json', '/metrics', '/livez', '/readyz', '/client.js']) {
      for (const headers of [{}, bearer('nonsense'), { cookie: 'ringside_token=nonsense' }]) {
        t.equal((await ask(server, path, { headers })).status, 200, path)
        t.equal((await ask(server, path, { method: 'HEAD', headers })).status, 200, `HEAD ${path}`)
      }
    }
    isProblem(t, await ask(server, '/nothing'), 404, /nothing/)
  })

  t.test('nothing is read of what cannot be published', async t => {
    const open = await build(t, { ...JWT, ANONYMOUS_SUBSCRIBE: '**' })
    for (const each of [server, open])
      isMissing(t, await post(each, '/events', '{'.repeat(1_000_000), JSON_TYPE))
  })
})

// --- with which keys ---

t.test('JWT_PUBLIC_KEY checks RS256, ES256 and EdDSA, by the kind of the key', async t => {
  const dir = t.testdir()
  for (const alg of ['RS256', 'ES256', 'EdDSA'] as const) {
    const keys = makeKeys(alg)
    const file = join(dir, `${alg}.pem`)
    writeFileSync(file, keys.pem)
    for (const [how, JWT_PUBLIC_KEY] of [
      ['PEM', keys.pem],
      ['PEM with its line ends written out', keys.pem.replaceAll('\n', '\\n')],
      ['a file', file]
    ] as const) {
      const server = await build(t, { JWT_PUBLIC_KEY })
      await isTaken(t, server, await tokenOf({}, { key: keys.privateKey, alg }), `${alg}, ${how}`)
    }
    const server = await build(t, { JWT_PUBLIC_KEY: keys.pem })
    await isRefused(t, server, await tokenOf({}, { key: makeKeys(alg).privateKey, alg }), /signature/)
    await isRefused(t, server, await tokenOf(), /algorithm/, 'HS256')
    // what everybody knows is no secret
    for (const key of [keys.pem, keys.pem.trim()]) {
      await isRefused(t, server, await tokenOf({}, { key }), /algorithm/, 'HS256 with the public key')
    }
  }
  const { privateKey } = makeKeys('EdDSA')
  const server = await build(t, { JWT_PUBLIC_KEY: publicPem(privateKey) })
  await isTaken(t, server, await tokenOf({}, { key: privateKey, alg: 'Ed25519' }), 'the name of today')
})

t.test('a certificate is a public key', async t => {
  const { TLS_CERT } = makeCertificate(t.testdir())
  await build(t, { JWT_PUBLIC_KEY: TLS_CERT })
})

t.test('what is no key is refused at the start, by a line that shows no secret', async t => {
  const dir = t.testdir()
  const file = (name: string, text: string) => {
    writeFileSync(join(dir, name), text)
    return join(dir, name)
  }
  const privateKey = generateKeyPairSync('ed25519')
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()
  const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey
  const refuses = async (env: Record<string, string>, says: RegExp, hidden?: string) => {
    const error: unknown = await Promise.resolve()
      .then(() => createServer(readSettings({ LOG_LEVEL: 'silent', ...env })))
      .then(
        app => app.close(),
        (error: unknown) => error
      )
    t.ok(error instanceof ConfigError, Object.keys(env).join())
    t.match(String(error), says)
    t.notMatch(String(error), '\n')
    if (hidden !== undefined) t.notOk(String(error).includes(hidden))
  }
  await refuses({ JWT_SECRET: 'x'.repeat(31) }, /JWT_SECRET: .*31 bytes.*at least 32 bytes/, 'xxx')
  await refuses({ JWT_PUBLIC_KEY: join(dir, 'none') }, /JWT_PUBLIC_KEY=.*none: can't be read/)
  await refuses({ JWT_PUBLIC_KEY: file('no.pem', 'no PEM') }, /JWT_PUBLIC_KEY=.*no\.pem.*PEM.*RSA/)
  await refuses({ JWT_PUBLIC_KEY: '-----BEGIN PUBLIC KEY-----\nAAAA' }, /JWT_PUBLIC_KEY: .*PEM/)
  await refuses({ JWT_PUBLIC_KEY: publicPem(rsa) }, /JWT_PUBLIC_KEY.*2048/)
  await refuses({ JWT_PUBLIC_KEY: publicPem(p384) }, /JWT_PUBLIC_KEY.*P-256/)
  await refuses({ JWT_PUBLIC_KEY: privateKey }, /JWT_PUBLIC_KEY.*private key/, privateKey.split('\n')[1])
  await refuses({ JWT_PUBLIC_KEY: file('key.pem', privateKey) }, /key\.pem.*private key/)
  await refuses({ JWKS_URL: 'ftp://a.example' }, /JWKS_URL=ftp:\/\/a\.example.*https/)
  await refuses({ JWKS_URL: 'https://' }, /JWKS_URL.*https/)
  await refuses({ JWKS_URL: 'https://me:hidden@a.example' }, /JWKS_URL.*without a user/, 'hidden')
  await refuses({ ...JWT, ANONYMOUS_SUBSCRIBE: 'a/**,b//c' }, /ANONYMOUS_SUBSCRIBE=b\/\/c: .*segments/)
  for (const name of ['ANONYMOUS_SUBSCRIBE', 'JWT_AUDIENCE', 'JWT_ISSUER'])
    await refuses({ [name]: 'a' }, new RegExp(`${name}.*JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL`))
})

t.test('several kinds of keys can be there at once', async t => {
  const keys = makeKeys('RS256')
  const server = await build(t, { ...JWT, JWT_PUBLIC_KEY: keys.pem })
  await isTaken(t, server, await tokenOf())
  await isTaken(t, server, await tokenOf({}, { key: keys.privateKey, alg: 'RS256' }))
  await isRefused(t, server, await tokenOf({}, { key: keys.pem }), /signature/, 'each for its own algorithm')
})

// --- hostile tokens ---

t.test('exp and nbf are checked always, with some tolerance for clocks', async t => {
  const server = await build(t, JWT)
  await isRefused(t, server, await tokenOf({ exp: secondsFromNow(-60) }), /run out/)
  await isRefused(t, server, await tokenOf({ exp: 0 }), /run out/)
  await isRefused(t, server, await tokenOf({ nbf: secondsFromNow(60) }), /not valid yet/)
  await isRefused(t, server, await tokenOf({ exp: undefined }), /\/exp is missing/)
  await isTaken(t, server, await tokenOf({ exp: secondsFromNow(-2) }))
  await isTaken(t, server, await tokenOf({ nbf: secondsFromNow(2) }))
  const exact = await build(t, { ...JWT, JWT_CLOCK_TOLERANCE: '0' })
  await isRefused(t, exact, await tokenOf({ exp: secondsFromNow(-2) }), /run out/)
  await isRefused(t, exact, await tokenOf({ nbf: secondsFromNow(2) }), /not valid yet/)
})

t.test('aud and iss are checked when they are configured', async t => {
  const server = await build(t, { ...JWT, JWT_AUDIENCE: 'ringside,other', JWT_ISSUER: 'https://a.example' })
  const right = { aud: 'ringside', iss: 'https://a.example' }
  await isTaken(t, server, await tokenOf(right))
  await isTaken(t, server, await tokenOf({ ...right, aud: ['somebody', 'other'] }))
  await isRefused(t, server, await tokenOf({ ...right, aud: 'somebody' }), /audience/)
  await isRefused(t, server, await tokenOf({ ...right, aud: [] }), /audience/)
  await isRefused(t, server, await tokenOf({ ...right, aud: undefined }), /\/aud is missing/)
  await isRefused(t, server, await tokenOf({ ...right, iss: 'https://b.example' }), /issuer/)
  await isRefused(t, server, await tokenOf({ ...right, iss: undefined }), /\/iss is missing/)
  const silent = await build(t, JWT)
  await isTaken(t, silent, await tokenOf({ aud: 'somebody', iss: 'anybody' }))
})

t.test('what is no good token is 401, and is never repeated', async t => {
  const server = await build(t, JWT)
  const good = await tokenOf()
  const [head, body, signature] = good.split('.') as [string, string, string]
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = (header: unknown, payload: unknown) => {
    const text = `${encode(header)}.${typeof payload === 'string' ? payload : encode(payload)}`
    return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`
  }
  const claims = { sub: 'alice', exp: secondsFromNow(3600) }
  const HS256 = { alg: 'HS256' }
  await isTaken(t, server, signed(HS256, claims))

  for (const [name, token, says] of [
    ['alg none', `${encode({ alg: 'none' })}.${body}.`, /algorithm/],
    ['alg None, with a signature', `${encode({ alg: 'None' })}.${body}.${signature}`, /algorithm/],
    ['no alg', signed({ typ: 'JWT' }, claims), /algorithm/],
    ['HS512', await tokenOf({}, { key: SECRET.repeat(2), alg: 'HS512' }), /algorithm/],
    ['an algorithm that there is not', signed({ alg: 'HS256 ' }, claims), /algorithm/],
    ['an algorithm that is no text', signed({ alg: ['HS256'] }, claims), /./],
    ['no signature', `${head}.${body}.`, /./],
    [
      'a signature of another token',
      `${head}.${body}.${(await tokenOf({ sub: 'b' })).split('.')[2]}`,
      /signature/
    ],
    ['another secret', await tokenOf({}, { key: `${SECRET}!` }), /signature/],
    ['a changed payload', `${head}.${encode({ ...claims, sub: 'root' })}.${signature}`, /signature/],
    [
      'a key of its own',
      signed({ ...HS256, jwk: { kty: 'oct', k: 'AAAA' } }, { ...claims, x: 1 }) + 'A',
      /./
    ],
    ['something critical that nobody knows', signed({ ...HS256, crit: ['x'], x: 1 }, claims), /./],
    ['an unencoded payload', signed({ ...HS256, crit: ['b64'], b64: false }, claims), /./],
    ['five parts', `${good}.${head}.${body}`, /signed JWT/],
    ['two parts', `${head}.${body}`, /signed JWT/],
    ['nothing between the dots', '..', /signed JWT/],
    ['no base64', `${head}.${body}!.${signature}`, /./],
    ['a header that is no JSON', `AAAA.${body}.${signature}`, /signed JWT/],
    ['a header that is null', `${encode(null)}.${body}.${signature}`, /./],
    ['a payload that is no JSON', signed(HS256, 'AAAA'), /./],
    ['a payload that is a list', signed(HS256, [claims]), /./],
    ['a payload that is null', signed(HS256, 'bnVsbA'), /./],
    ['too long', await tokenOf({ pad: 'x'.repeat(8192) }), /longer than 8192/],
    ['text', 'letmein', /signed JWT/]
  ] as const) {
    await isRefused(t, server, token, says, name)
  }
})

t.test('claims that cannot be understood are 401, and it says what is wrong', async t => {
  const server = await build(t, JWT)
  for (const [claims, path] of [
    [{ sub: 7 }, '/sub'],
    [{ sub: '' }, '/sub'],
    [{ sub: null }, '/sub'],
    [{ exp: 'tomorrow' }, '/exp'],
    [{ nbf: 'yesterday' }, '/nbf'],
    [{ ringside: null }, '/ringside'],
    [{ ringside: 'a' }, '/ringside'],
    [{ ringside: [] }, '/ringside'],
    [{ ringside: { subscribe: 'a' } }, '/ringside/subscribe'],
    [{ ringside: { publish: { a: 1 } } }, '/ringside/publish'],
    [{ ringside: { subscribe: ['a', 7] } }, '/ringside/subscribe/1'],
    [{ ringside: { subscribe: [''] } }, '/ringside/subscribe/0'],
    [{ ringside: { publish: ['a', 'b//c'] } }, '/ringside/publish/1'],
    [{ ringside: { publish: ['/a'] } }, '/ringside/publish/0'],
    [{ ringside: { subscribe: ['a/**/b'] } }, '/ringside/subscribe/0'],
    [{ ringside: { subscribe: ['a\nb'] } }, '/ringside/subscribe/0']
  ] as const) {
    const answer = await ask(server, '/events/a', { headers: bearer(await tokenOf(claims)) })
    const problem = isInvalid(t, answer, new RegExp(path))
    t.match(problem['errors'], [{ path, message: String }], JSON.stringify(claims))
  }
})

// --- what the claims allow ---

t.test('claims say what may be read', async t => {
  const server = await build(t, JWT)
  const headers = bearer(
    await tokenFor({ subscribe: ['tickers/*', 'dashboards/**', 'a/*/c', 'exact', 'deep/**'] })
  )
  const status = async (path: string) => {
    const answer = await getJson(server, path, headers)
    if (answer.status === 403) isForbidden(t, answer, /may not be read/)
    return answer.status
  }
  for (const topics of [
    ['exact'],
    ['a/b/c'],
    ['tickers/AAPL'],
    ['tickers/*'],
    ['tickers/AAPL', 'exact'],
    ['deep'],
    ['deep/*'],
    ['deep/a/b/c'],
    ['deep/a/*']
  ]) {
    t.equal(await status(`/events?topic=${topics.join('&topic=')}`), 200, topics.join())
  }
  for (const topics of [
    ['other'],
    ['exact/a'],
    ['*'],
    ['a/*'],
    ['a/b/*'],
    ['a/b'],
    ['a/b/c/d'],
    ['tickers/AAPL/x'],
    ['Exact'],
    ['exact', 'other'],
    ['deeper']
  ]) {
    t.equal(await status(`/events?topic=${topics.join('&topic=')}`), 403, topics.join())
  }
  t.equal(await status('/events/other?topic=exact'), 403)
  t.equal(await status('/events/exact?topic=other'), 403)
  t.equal(await status('/tickers?symbols=AAPL,MSFT'), 200)
  t.equal(await status('/tickers?symbols=*'), 200)

  const narrow = bearer(await tokenFor({ subscribe: ['tickers/AAPL', 'dashboards/ops'] }))
  t.equal((await getJson(server, '/tickers?symbols=AAPL', narrow)).status, 200)
  isForbidden(t, await getJson(server, '/tickers?symbols=AAPL,MSFT', narrow), /MSFT/)
  isForbidden(t, await getJson(server, '/tickers?symbols=*', narrow), /tickers/)
})

t.test('a 403 comes whatever the reader accepts, and before anything is told', async t => {
  const server = await build(t, JWT)
  const headers = bearer(await tokenFor({ subscribe: ['a'] }))
  for (const accept of ['text/event-stream', 'application/x-ndjson', 'application/json', '*/*']) {
    isForbidden(t, await ask(server, '/events/b', { headers: { ...headers, accept } }), /"b" may not/)
    isForbidden(t, await ask(server, '/dashboards/none', { headers: { ...headers, accept } }), /may not/)
  }
  t.equal((await ask(server, '/events/b', { method: 'HEAD', headers })).status, 403)
})

t.test('claims say what may be published on', async t => {
  const server = await build(t, JWT)
  const token = await tokenFor({
    publish: ['a/*', 'tickers/AAPL', 'dashboards/ops', 'notifications/bob', 'notifications/carol']
  })
  const headers = bearer(token)
  const sent = (method: string, path: string, body: unknown) => send(server, method, path, body, headers)

  t.equal((await post(server, '/events/a/b', 'x', headers)).status, 201)
  isForbidden(t, await post(server, '/events/b', 'x', headers), /"b" may not be published on/)
  isForbidden(t, await post(server, '/events/a/b/c', 'x', headers), /a\/b\/c/)
  t.equal((await sent('POST', '/events', [{ topic: 'a/1', data: 1 }])).status, 201)

  const batch = [
    { topic: 'a/1', data: 1 },
    { topic: 'a/2', data: 2 },
    { topic: 'b', data: 3 }
  ]
  const problem = isForbidden(t, await sent('POST', '/events', batch), /\/2\/topic/)
  t.match(problem['errors'], [{ path: '/2/topic' }], 'the index is named')
  const everything = bearer(await tokenFor(EVERYTHING))
  const { events } = (await getJson(server, '/events?topic=a/2&rewind=9', everything)).json()
  t.strictSame(events, [], 'and nothing of the batch is stored')

  t.equal((await sent('POST', '/tickers', { symbol: 'AAPL', price: 1 })).status, 201)
  isForbidden(t, await sent('POST', '/tickers', { symbol: 'MSFT', price: 1 }), /\/symbol.*MSFT/)
  const quotes = ['AAPL', 'MSFT'].map(symbol => ({ symbol, price: 1 }))
  isForbidden(t, await sent('POST', '/tickers', quotes), /\/1\/symbol/)

  t.equal((await sent('PUT', '/dashboards/ops', { a: 1 })).status, 201)
  t.equal((await sent('PATCH', '/dashboards/ops', { a: 2 })).status, 200)
  t.equal((await sent('DELETE', '/dashboards/ops', undefined)).status, 204)
  for (const method of ['PUT', 'PATCH', 'DELETE'])
    isForbidden(t, await sent(method, '/dashboards/other', method === 'DELETE' ? undefined : {}), /other/)

  t.equal((await sent('POST', '/notifications', { to: ['bob', 'carol'], title: 'x' })).status, 201)
  isForbidden(t, await sent('POST', '/notifications', { to: ['bob', 'dave'], title: 'x' }), /\/to\/1/)
  isForbidden(t, await sent('POST', '/notifications', { to: 'alice', title: 'x' }), /\/to:/)

  const reader = bearer(await tokenFor({ subscribe: ['**'] }))
  isForbidden(t, await post(server, '/events/a', 'x', reader), /may not be published on/)
  isForbidden(t, await post(server, '/events/tickers/AAPL', 'x', everything), /through \/tickers/, null)
})

t.test('what may not be published is refused before its body is read', async t => {
  const server = await build(t, { ...JWT, ANONYMOUS_SUBSCRIBE: '**' })
  const some = await tokenFor({ subscribe: ['**'], publish: ['a/*'] })
  const none = await tokenFor({ subscribe: ['**'], publish: [] })
  /** Sends the head of a request, and never its body. */
  const refused = async (method: string, path: string, token: string | null, status: number) => {
    const connection = rawConnection(t, server)
    connection.send(
      `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50000\r\n` +
        `${token === null ? '' : `Authorization: Bearer ${token}\r\n`}\r\n`
    )
    t.match(await connection.until('\r\n\r\n'), new RegExp(`^HTTP/1.1 ${status} `), `${method} ${path}`)
    connection.destroy()
  }
  const ofOneTopic = [
    ['POST', '/events/b'],
    ['PUT', '/dashboards/b'],
    ['PATCH', '/dashboards/b'],
    ['DELETE', '/dashboards/b']
  ] as const
  const ofAny = [
    ['POST', '/events'],
    ['POST', '/tickers'],
    ['POST', '/notifications']
  ] as const
  for (const [method, path] of ofOneTopic) await refused(method, path, some, 403)
  for (const [method, path] of [...ofOneTopic, ...ofAny]) {
    await refused(method, path, none, 403)
    await refused(method, path, null, 401)
  }
  await refused('POST', '/events/a//b', some, 400)
  await refused('POST', '/events/tickers/A', await tokenFor(EVERYTHING), 403)
  await refused('PUT', '/dashboards/*', some, 400)
})

t.test('GET /dashboards lists what may be read', async t => {
  const server = await build(t, JWT)
  const all = bearer(await tokenFor(EVERYTHING))
  for (const id of ['a', 'b', 'c']) await send(server, 'PUT', `/dashboards/${id}`, {}, all)
  const listed = async (subscribe: readonly string[]) => {
    const answer = await getJson(server, '/dashboards', bearer(await tokenFor({ subscribe })))
    return (answer.json()['dashboards'] as { id: string }[]).map(({ id }) => id)
  }
  t.strictSame(await listed(['dashboards/*']), ['a', 'b', 'c'])
  t.strictSame(await listed(['dashboards/c', 'dashboards/a', 'b']), ['a', 'c'])
  t.strictSame(await listed([]), [])
})

t.test('a token that names no user may do what it claims, and has no notifications', async t => {
  const server = await build(t, JWT)
  const headers = bearer(await tokenOf({ sub: undefined, ringside: { publish: ['a'] } }))
  t.equal((await post(server, '/events/a', 'x', headers)).status, 201)
  isForbidden(t, await ask(server, '/notifications', { headers }), /user/)
  isForbidden(t, await ask(server, '/events/notifications/null', { headers }), /may not be read/)
})

t.test('everyone reads and marks their own notifications, and nobody another user’s', async t => {
  const server = await build(t, JWT)
  const sender = bearer(await tokenFor({ publish: ['notifications/*'] }, 'system'))
  const alice = bearer(await tokenOf({ sub: 'alice' }))
  const bob = bearer(await tokenFor({ ...EVERYTHING, subscribe: ['**', 'notifications/*'] }, 'bob'))
  const sent = await send(server, 'POST', '/notifications', { to: 'alice', title: 'secret' }, sender)
  const { alice: id } = sent.json()['ids'] as { alice: string }

  t.match((await getJson(server, '/notifications', alice)).json(), { unread: 1 })
  t.match((await getJson(server, '/events/notifications/alice?rewind=1', alice)).json(), { events: [{ id }] })
  const stream = await listen(t, server, '/notifications', { ...alice, accept: 'text/event-stream' })
  t.match(await stream.first('unread'), { data: '{"unread":1}' })

  t.match(
    (await getJson(server, '/notifications?user=alice', bob)).json(),
    { unread: 0 },
    '?user= is nothing'
  )
  for (const topic of ['notifications/alice', 'notifications/*']) {
    isForbidden(t, await getJson(server, `/events?topic=${topic}`, bob), /may not be read/)
    isForbidden(t, await getJson(server, `/events?topic=${topic}&topic=notifications/bob`, bob), /./)
  }
  for (const text of ['*', '**', 'alice/x', '../alice', 'alice\u0000']) {
    const headers = bearer(await tokenFor({ subscribe: ['**', 'notifications/**'] }, text))
    isForbidden(t, await getJson(server, '/events?topic=notifications/*', headers), /./)
    isForbidden(t, await getJson(server, '/events?topic=notifications/alice', headers), /./)
  }
  const star = await getJson(server, '/notifications', bearer(await tokenOf({ sub: '*' })))
  isProblem(t, star, 400, /not one segment/)

  isProblem(t, await send(server, 'POST', `/notifications/${id}/read?user=alice`, undefined, bob), 404, /./)
  isProblem(t, await send(server, 'DELETE', `/notifications/${id}`, undefined, bob), 404, /./)
  await send(server, 'POST', '/notifications/read', { all: true }, bob)
  t.match((await getJson(server, '/notifications', alice)).json(), { unread: 1 }, 'it is as it was')

  t.match((await send(server, 'POST', `/notifications/${id}/read`, undefined, alice)).json(), { unread: 0 })
  t.equal((await send(server, 'DELETE', `/notifications/${id}`, undefined, alice)).status, 200)
})

// --- without a token ---

t.test('ANONYMOUS_SUBSCRIBE is what no token may read', async t => {
  const server = await build(t, { ...JWT, ANONYMOUS_SUBSCRIBE: 'public/**, tickers/*, dashboards/open' })
  t.equal((await getJson(server, '/events?topic=public/a/b&topic=tickers/*')).status, 200)
  t.equal((await getJson(server, '/tickers?symbols=*')).status, 200)
  const stream = await listen(t, server, '/events/public/a')
  const writer = bearer(await tokenFor(EVERYTHING))
  await post(server, '/events/public/a', 'hello', writer)
  t.match(await stream.next(), { data: 'hello' })

  isMissing(t, await getJson(server, '/events?topic=private'))
  isMissing(t, await getJson(server, '/events?topic=public/a&topic=private'))
  isMissing(t, await getJson(server, '/notifications'))
  isMissing(t, await getJson(server, '/notifications?user=alice'))
  isMissing(t, await post(server, '/events/public/a', 'x'))
  isMissing(t, await send(server, 'PUT', '/dashboards/open', {}))
  for (const id of ['open', 'closed']) await send(server, 'PUT', `/dashboards/${id}`, {}, writer)
  t.match((await getJson(server, '/dashboards')).json(), { dashboards: [{ id: 'open' }] })
  t.equal(((await getJson(server, '/dashboards')).json()['dashboards'] as unknown[]).length, 1)
  isMissing(t, await getJson(server, '/dashboards/closed'))

  const none = bearer(await tokenFor({}))
  isForbidden(t, await getJson(server, '/events?topic=public/a', none), /public/, undefined)
})

t.test('notifications are for nobody without a token, whatever the pattern', async t => {
  const server = await build(t, { ...JWT, ANONYMOUS_SUBSCRIBE: '**' })
  isMissing(t, await getJson(server, '/events?topic=notifications/alice'))
  isMissing(t, await getJson(server, '/events?topic=notifications/*'))
  t.equal((await getJson(server, '/events?topic=a/b')).status, 200)
})

t.test('with no key at all everyone may do everything, and the query says who they are', async t => {
  const server = await build(t)
  for (const [method, path, body] of CLOSED.filter(([, path]) => !path.includes('notifications'))) {
    const { status } = await attempt(server, [method, path, body], { accept: 'application/json' })
    t.ok(status < 300 || status === 404, `${method} ${path}: ${status}`)
  }
  await send(server, 'POST', '/notifications', { to: 'alice', title: 'x' })
  t.match((await getJson(server, '/notifications?user=alice')).json(), { unread: 1 })
  isProblem(t, await getJson(server, '/notifications'), 400, /user/)
  t.equal((await getJson(server, '/events?topic=notifications/*')).status, 200)
  t.equal((await getJson(server, '/events?topic=a', bearer('nonsense'))).status, 200)
})

// --- pages of other origins ---

t.test('CORS: a refusal is for the page to read, and a preflight needs no token', async t => {
  const server = await build(t, { ...JWT, CORS_ORIGIN: PAGE })
  const headers = { origin: PAGE }
  const token = bearer(await tokenFor({}))
  for (const answer of [
    await ask(server, '/events/a', { headers }),
    await ask(server, '/events/a', { headers: { ...headers, ...bearer('nonsense') } }),
    await ask(server, '/events/a', { headers: { ...headers, ...token } }),
    await post(server, '/events/a', 'x', { ...headers, ...token })
  ]) {
    t.ok([401, 403].includes(answer.status))
    t.equal(answer.headers['access-control-allow-origin'], PAGE, String(answer.status))
    t.equal(answer.headers['access-control-allow-credentials'], 'true')
  }
  const preflight = await ask(server, '/events/a', {
    method: 'OPTIONS',
    headers: {
      ...headers,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization'
    }
  })
  t.equal(preflight.status, 204)
  t.match(preflight.headers['access-control-allow-headers'], /authorization/i)
})

t.test('what a cookie allows is written for a listed or the same origin only', async t => {
  const env = { ...JWT, CORS_ORIGIN: `${PAGE},https://other.example` }
  const server = await build(t, env)
  const own = `http://127.0.0.1:${server.port}`
  const token = await tokenFor(EVERYTHING)
  const cookie = `ringside_token=${token}`
  const write = (headers: Record<string, string>, [method, path, body] = CLOSED[3]!) =>
    attempt(server, [method, path, body], { cookie, ...headers })

  for (const headers of [
    { origin: PAGE },
    { origin: 'https://other.example' },
    { origin: own },
    { origin: own, 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'same-origin' }
  ]) {
    t.equal((await write(headers)).status, 201, JSON.stringify(headers))
  }
  for (const headers of [
    {},
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: '' },
    { origin: `${PAGE}.evil.example` },
    { origin: `${own}0` },
    { origin: own.replace('http:', 'https:') },
    { origin: `http://127.0.0.1` },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'none' },
    { origin: 'https://evil.example', host: 'evil.example' }
  ] as Record<string, string>[]) {
    const answer = await write(headers)
    isProblem(t, answer, 403, /Origin/)
    t.notOk(answer.headers['www-authenticate'], 'another token would not help')
  }
  for (const request of CLOSED.filter(([method]) => !['GET', 'HEAD'].includes(method))) {
    isProblem(t, await write({ origin: 'https://evil.example' }, request), 403, /Origin/)
  }

  t.test('reading needs none, nor what no browser sends by itself', async t => {
    t.equal(
      (await getJson(server, '/events?topic=a', { cookie, origin: 'https://evil.example' })).status,
      200
    )
    t.equal((await getJson(server, '/events?topic=a', { cookie })).status, 200)
    t.equal((await post(server, '/events/a', 'x', { ...bearer(token), origin: PAGE })).status, 201)
    const headers = { ...bearer(token), cookie, origin: 'https://evil.example' }
    t.equal((await post(server, '/events/a', 'x', headers)).status, 201)
    t.equal((await post(server, `/events/a?token=${token}`, 'x', { origin: PAGE })).status, 201)
  })

  t.test('* lists nobody', async t => {
    const any = await build(t, { ...JWT, CORS_ORIGIN: '*' })
    isProblem(t, await post(any, '/events/a', 'x', { cookie, origin: PAGE }), 403, /Origin/)
    const answer = await getJson(any, '/events?topic=a', { cookie, origin: PAGE })
    t.equal(answer.headers['access-control-allow-origin'], '*')
    t.notOk(answer.headers['access-control-allow-credentials'])
  })

  t.test('behind a proxy that is trusted it is the one that the browser knows', async t => {
    const forwarded = {
      cookie,
      'x-forwarded-host': 'live.example',
      'x-forwarded-proto': 'https',
      origin: 'https://live.example'
    }
    const trusting = await build(t, { ...JWT, TRUST_PROXY: '127.0.0.1' })
    t.equal((await post(trusting, '/events/a', 'x', forwarded)).status, 201)
    const wrong = { ...forwarded, origin: 'http://live.example' }
    isProblem(t, await post(trusting, '/events/a', 'x', wrong), 403, /https:\/\/live\.example/)
    isProblem(t, await post(server, '/events/a', 'x', forwarded), 403, /Origin/)
  })
})

t.test('an upgrade to a WebSocket is asked for its token and its origin like any other request', async t => {
  const token = await tokenFor(EVERYTHING)
  const json = { accept: 'application/json' }
  const upgrade = { ...json, connection: 'Upgrade', upgrade: 'websocket' }
  const evil = { origin: 'https://evil.example' }
  const statusOf = async (server: Server, headers: Record<string, string>, query = '') =>
    (await ask(server, `/events/a${query}`, { headers })).status

  const server = await build(t, { ...JWT, CORS_ORIGIN: PAGE })
  const own = { origin: `http://127.0.0.1:${server.port}` }
  const cookie = { cookie: `ringside_token=${token}` }
  t.equal(await statusOf(server, upgrade), 401)
  t.equal(await statusOf(server, { ...upgrade, ...bearer(token) }), 200)
  t.equal(await statusOf(server, { ...upgrade, ...bearer(token), ...evil }), 403)
  t.equal(await statusOf(server, { ...upgrade, ...evil }, `?token=${token}`), 403)
  t.equal(await statusOf(server, { ...upgrade, ...cookie }), 403)
  t.equal(await statusOf(server, { ...upgrade, ...cookie, ...evil }), 403)
  for (const origin of [own, { origin: PAGE }]) {
    t.equal(await statusOf(server, { ...upgrade, ...cookie, ...origin }), 200)
    t.equal(await statusOf(server, { ...upgrade, ...origin }, `?token=${token}`), 200)
  }
  const any = await build(t, { ...JWT, CORS_ORIGIN: '*' })
  t.equal(await statusOf(any, { ...upgrade, ...bearer(token), ...evil }), 200)
  t.equal(await statusOf(any, { ...upgrade, ...cookie, ...evil }), 403)

  const trusting = await build(t, { ...JWT, TRUST_PROXY: '127.0.0.1' })
  const forwarded = { ...upgrade, ...cookie, 'x-forwarded-host': 'live.example' }
  const page = { origin: 'https://live.example' }
  // as most proxies say it, and as Traefik does
  for (const scheme of ['https', 'wss'])
    t.equal(await statusOf(trusting, { ...forwarded, ...page, 'x-forwarded-proto': scheme }), 200, scheme)
  for (const scheme of ['http', 'ws'])
    t.equal(await statusOf(trusting, { ...forwarded, ...page, 'x-forwarded-proto': scheme }), 403, scheme)
  const development = await build(t)
  t.equal(await statusOf(development, upgrade), 200)
  t.equal(await statusOf(development, { ...upgrade, ...evil }), 403, 'no browser asks who may open one')
})

t.test('over HTTP/2 as well', async t => {
  const { TLS_CERT, TLS_KEY } = makeCertificate(t.testdir())
  const server = await build(t, { ...JWT, TLS_CERT, TLS_KEY })
  const session = connect(`https://127.0.0.1:${server.port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const token = await tokenFor(EVERYTHING)
  const answer = (headers: OutgoingHttpHeaders) =>
    new Promise<{ status: number | undefined; challenge: string | undefined }>((resolve, reject) => {
      const stream = session.request({ ':path': '/events/a', accept: 'application/json', ...headers })
      stream.on('error', reject)
      stream.on('response', ({ ':status': status, 'www-authenticate': challenge }) => {
        resolve({ status, challenge })
        stream.close()
      })
      stream.end(headers[':method'] === 'POST' ? 'x' : undefined)
    })
  t.strictSame(await answer({}), { status: 401, challenge: 'Bearer realm="ringside"' })
  t.match(await answer(bearer(token)), { status: 200 })
  t.match(await answer({ cookie: ['theme=dark', `ringside_token=${token}`] }), { status: 200 })
  const write = { ':method': 'POST', cookie: `ringside_token=${token}` }
  t.match(await answer({ ...write, origin: `https://127.0.0.1:${server.port}` }), { status: 201 })
  t.match(await answer({ ...write, origin: 'https://evil.example' }), { status: 403 })
})

// --- a token runs out ---

t.test('a token that runs out ends its streams', async t => {
  const server = await build(t, { ...JWT, RETRY: '1s' })
  const claims = { ringside: EVERYTHING }
  const exp = secondsFromNow(2)
  const short = bearer(await tokenOf({ ...claims, exp }))
  const long = bearer(await tokenOf(claims))
  const stays = await listen(t, server, '/events/a', { ...long, accept: 'text/event-stream' })
  const sse = await listen(t, server, '/events/a', { ...short, accept: 'text/event-stream' })
  const tickers = await listen(t, server, '/tickers?symbols=*', { ...short, accept: 'text/event-stream' })
  const lines = ask(server, '/events/a', { headers: { ...short, accept: 'application/x-ndjson' } })
  const poll = getJson(server, '/events/b?wait=60', short)

  for (const stream of [sse, tickers]) {
    const frames = await stream.whole()
    t.ok(Date.now() >= exp * 1000, 'not before')
    const { event, data, retry } = frames.at(-1)!
    t.equal(event, 'goodbye')
    t.match(JSON.parse(data!), { reason: 'expired', retry })
    t.ok(retry! >= 1000)
  }
  t.match((await lines).text.trim().split('\n').at(-1), /"goodbye".*"expired"/)
  const page = await poll
  t.equal(page.status, 200, 'a poll is answered with what there is')
  t.match(page.json(), { events: [], cursor: String, more: false })

  const stored = await post(server, '/events/a', 'on and on', long)
  t.match(await stays.next(), { id: stored.json()['id'], data: 'on and on' }, 'others go on')
  const metrics = await metricsOf(server)
  t.equal(metrics.get('ringside_connections_closed_total{transport="sse",reason="expired"}'), 2)
  t.equal(metrics.get('ringside_connections{transport="sse"}'), 1)
})

// --- what is kept to ourselves ---

t.test('failures are counted, by a closed list of reasons', async t => {
  const server = await build(t, JWT)
  const failed = async () =>
    [...(await metricsOf(server))]
      .filter(([name, count]) => name.startsWith('ringside_auth_failures_total') && count > 0)
      .map(([name, count]) => [/reason="(.*)"/.exec(name)![1], count])
  t.strictSame(await failed(), [])
  await ask(server, '/events/a')
  await ask(server, '/events/a', { headers: { accept: 'text/event-stream' } })
  await ask(server, '/events/a', { headers: bearer('nonsense') })
  await ask(server, '/events/a', { headers: bearer(await tokenOf({ exp: 1 })) })
  await ask(server, '/events/a', { headers: bearer(await tokenFor({})) })
  await post(server, '/events/a', 'x', { cookie: `ringside_token=${await tokenFor({})}` })
  t.strictSame(Object.fromEntries(await failed()), {
    missing: 2,
    malformed: 1,
    expired: 1,
    forbidden: 1,
    origin: 1
  })
})

t.test('a refusal on a WebSocket is counted like any other', async t => {
  const server = await build(t, { ...JWT, ANONYMOUS_SUBSCRIBE: 'public' })
  const failed = async (reason: string) =>
    (await metricsOf(server)).get(`ringside_auth_failures_total{reason="${reason}"}`) ?? 0
  const nobody = await tokenOf({ sub: undefined, ringside: { subscribe: ['a'], publish: ['a'] } })
  const client = await connectWs(t, server, { headers: bearer(nobody) })
  const anonymous = await connectWs(t, server)
  const messages = [
    ['subscribe', { topics: ['a', 'b'] }, 'topics: "b" may not be read'],
    ['join', { topic: 'b' }, 'topic: "b" may not be read'],
    ['publish', { topic: 'b', data: 1 }, 'topic: "b" may not be published on'],
    ['signal', { topic: 'b', data: 1 }, 'topic: "b" may not be published on'],
    ['read', { ids: ['1-0'] }, 'nobody is known whose notifications these are']
  ] as const
  for (const [index, [op, message, says]] of messages.entries()) {
    t.match(await client.ask(op, message), { op: 'error', code: 'forbidden', message: says })
    t.equal(await failed('forbidden'), index + 1, op)
  }
  for (const [index, [op, message]] of messages.slice(0, -1).entries()) {
    t.match(await anonymous.ask(op, message), { op: 'error', code: 'forbidden' })
    t.equal(await failed('missing'), index + 1, op)
  }
  for (const each of [client, anonymous]) await each.ask('subscribe', { topics: ['a//b'] })
  await anonymous.do('subscribe', { topics: ['public'] })
  t.equal((await failed('forbidden')) + (await failed('missing')), 9, 'what is wrong is no refusal')
  await ask(server, '/events/b', { headers: bearer(nobody) })
  t.equal(await failed('forbidden'), 6, 'by HTTP it is the same counter')
})

t.test(
  'no token comes into the log, a metric or an answer, whatever is asked and however it goes',
  async t => {
    const server = await serve(t, { ...JWT, LOG_LEVEL: 'trace', CORS_ORIGIN: PAGE })
    // each has its own words, to be looked for
    const tokens = await Promise.all(
      [{}, { exp: 1 }, { ringside: 7 }, { pad: 'x'.repeat(9000) }].map((claims, index) =>
        tokenOf({ sub: `somebody${index}`, ringside: EVERYTHING, ...claims })
      )
    )
    const answers: string[] = []
    for (const token of [
      ...tokens,
      `${tokens[0]!}x`,
      'nonsens1.nonsens2.nonsens3',
      `sec${'r'.repeat(20)}et`
    ]) {
      const ways: [query: string, headers: Record<string, string>][] = [
        ['', bearer(token)],
        ['', { authorization: `Basic ${token}` }],
        ['', { cookie: `ringside_token=${token}` }],
        [`token=${token}`, {}]
      ]
      for (const [query, headers] of ways) {
        for (const path of [
          '/',
          '/events/a',
          '/events/a?rewind=x',
          '/events/%zz',
          '/events?topic=a//b',
          '/dashboards/none',
          '/nothing',
          '/metrics',
          '/docs',
          '/docs/nothing',
          '/client.js',
          '/tickers'
        ]) {
          const url = query === '' ? path : `${path}${path.includes('?') ? '&' : '?'}${query}`
          const answer = await ask(server, url, { headers: { ...headers, accept: 'application/json' } })
          answers.push(`${JSON.stringify(answer.headers)}${answer.text}`)
        }
        for (const method of ['POST', 'PUT', 'PROPFIND', 'OPTIONS']) {
          const answer = await ask(server, `/events/a?${query}`, { method, headers })
          answers.push(`${JSON.stringify(answer.headers)}${answer.text}`)
        }
        for (const [method, path, body] of [
          ['POST', '/events', '[{"topic":"a","data":1}]'],
          ['POST', '/events', '[{'],
          ['PUT', '/tickers/A', '{"price":1}'],
          ['PATCH', '/dashboards/a', '{"a":1}'],
          ['DELETE', '/dashboards/a', undefined],
          ['POST', '/notifications', '{"to":["a"],"title":"x"}'],
          ['POST', '/events/a', 'x'.repeat(200_000)]
        ] as const) {
          const type = body === undefined ? {} : { 'content-type': 'application/json' }
          const answer = await ask(server, `${path}?${query}`, {
            method,
            headers: { ...headers, ...type, origin: 'https://evil.example' },
            ...(body !== undefined && { body })
          })
          answers.push(`${JSON.stringify(answer.headers)}${answer.text}`)
        }
        const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws?${query}`, { headers })
        socket.on('message', (bytes: Buffer) => answers.push(bytes.toString()))
        socket.on('open', () => {
          socket.send(JSON.stringify({ op: 'publish', ref: 1, topic: 'a', data: 1 }))
          socket.send(JSON.stringify({ op: 'nonsense', ref: 2 }))
          socket.close()
        })
        socket.on('unexpected-response', (_request, answer) => {
          answers.push(JSON.stringify(answer.headers))
          socket.terminate()
        })
        await new Promise<void>(resolve => {
          socket.on('close', () => resolve())
          socket.on('error', () => resolve())
        })
      }
      const broken = rawConnection(t, server)
      broken.send(`GET /events/a?token=${token} HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n`)
      answers.push(await broken.closed)
      const huge = rawConnection(t, server)
      huge.send(
        `GET /events/a?token=${token} HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`
      )
      answers.push(await huge.closed)
    }
    const stream = await listen(t, server, `/events/a?token=${tokens[0]}`)
    stream.close()
    server.child.kill('SIGTERM')
    await exitOf(server)
    t.match(server.stdout(), /"level":30/, 'there is a log')
    const told = [server.stdout(), server.stderr(), ...answers].join('\n')
    for (const token of [...tokens, 'nonsens1.nonsens2.nonsens3', `sec${'r'.repeat(20)}et`]) {
      for (const part of token.split('.').filter(part => part.length > 4))
        t.notOk(told.includes(part), part.slice(0, 30))
    }
    t.notOk(told.includes(SECRET))
  }
)

t.test('a token is remembered until it runs out', async t => {
  const server = await build(t, { ...JWT, JWT_CLOCK_TOLERANCE: '0', WRITE_RATE: '0' })
  const token = bearer(await tokenOf({ exp: secondsFromNow(2), ringside: EVERYTHING }))
  let answers = 0
  for (;;) {
    const answer = await post(server, '/events/a', 'x', token)
    if (answer.status !== 201) {
      isInvalid(t, answer, /run out/)
      break
    }
    answers++
  }
  t.ok(answers > 1)
})

// --- helpers ---

type Server = Awaited<ReturnType<typeof build>>

function attempt(
  server: Server,
  [method, path, body]: (typeof CLOSED)[number],
  headers: Ask['headers'] = {}
) {
  return typeof body === 'string' || body === undefined
    ? ask(server, path, { method, headers, ...(body !== undefined && { body }) })
    : send(server, method, path, body, headers as Record<string, string>)
}

/** No token where one is needed: RFC 6750, section 3.1, has no error for it. */
function isMissing(t: Test, answer: Answer, name = ''): void {
  t.equal(answer.status, 401, name)
  if (answer.text !== '') isProblem(t, answer, 401, /token is needed/)
  t.equal(answer.headers['www-authenticate'], 'Bearer realm="ringside"', name)
}

function isInvalid(t: Test, answer: Answer, says: RegExp): Record<string, unknown> {
  t.match(
    answer.headers['www-authenticate'],
    /^Bearer realm="ringside", error="invalid_token", error_description="[ !#-[\]-~]*"$/
  )
  return isProblem(t, answer, 401, says)
}

function isForbidden(
  t: Test,
  answer: Answer,
  says: RegExp,
  challenge: RegExp | null = /^Bearer .*error="insufficient_scope"/
) {
  if (challenge) t.match(answer.headers['www-authenticate'], challenge)
  return isProblem(t, answer, 403, says)
}

async function isTaken(t: Test, server: Server, token: string, name = ''): Promise<void> {
  const answer = await getJson(server, '/notifications', bearer(token))
  t.equal(answer.status, 200, `${name} ${answer.text}`)
}

async function isRefused(t: Test, server: Server, token: string, says: RegExp, name = ''): Promise<void> {
  t.comment(name)
  const byHeader = await getJson(server, '/notifications', { authorization: `Bearer ${token}` })
  const byQuery = await getJson(server, `/notifications?token=${encodeURIComponent(token)}`)
  for (const answer of [byHeader, byQuery]) {
    t.equal(answer.status, 401, name)
    t.ok(answer.headers['www-authenticate'])
    for (const part of token.split('.').filter(part => part.length > 4)) {
      t.notOk(answer.text.includes(part) || String(answer.headers['www-authenticate']).includes(part))
    }
  }
  isInvalid(t, byQuery, says)
}
