import t from 'tap'
import { ask, build, isProblem, post, publish } from '../support/app.ts'
import { rawConnection } from '../support/raw.ts'
import { listen } from '../support/reader.ts'

const PAGE = 'https://page.example'

t.test('an error is application/problem+json and names what was wrong', async t => {
  const server = await build(t)

  t.test('with exactly type, title, status and detail', async t => {
    const answer = await ask(server, '/nothing?token=secret')
    const problem = isProblem(t, answer, 404, /GET \/nothing/)
    t.strictSame(Object.keys(problem).sort(), ['detail', 'status', 'title', 'type'])
    t.strictSame([problem['type'], problem['title']], ['about:blank', 'Not Found'])
    t.notMatch(answer.text, /secret/, 'never what may be a token')
  })

  t.test('with errors when something was not valid', async t => {
    const problem = isProblem(t, await ask(server, '/events?topic=a&rewind=-1'), 400, /rewind/)
    t.match(problem['errors'], [{ path: /rewind/, message: String }])
    t.strictSame(Object.keys((problem['errors'] as object[])[0]!).sort(), ['message', 'path'])
  })

  t.test('also when it comes from before any route', async t => {
    const answer = await ask(server, '/events/%zz?token=secret')
    isProblem(t, answer, 400, /\/events\/%zz is not a path/)
    t.notMatch(answer.text, /secret/)
    isProblem(t, await post(server, '/livez', 'x'), 405, /POST/)
    isProblem(t, await ask(server, '/events', { method: 'PROPFIND' }), 404, /PROPFIND/)
  })

  t.test('an OPTIONS that is no preflight is none', async t => {
    t.equal((await ask(server, '/events', { method: 'OPTIONS' })).status, 204)
  })

  for (const [name, request, status] of [
    ['a request that is no HTTP', 'nonsense\r\n\r\n', 400],
    [
      'a header that is too large',
      `GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
      431
    ],
    ['a header with a NUL', 'GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n', 400]
  ] as const) {
    t.test(`also for ${name}`, async t => {
      const connection = rawConnection(t, server)
      connection.send(request)
      const [head, body] = (await connection.closed).split('\r\n\r\n') as [string, string]
      t.match(head, new RegExp(`^HTTP/1\\.1 ${status} `))
      t.match(head, /content-type: application\/problem\+json/i)
      t.match(JSON.parse(body), { type: String, title: String, status, detail: String })
    })
  }

  t.test('but an answer to HEAD has no content, however wrong the request is', async t => {
    const connection = rawConnection(t, server)
    connection.send('HEAD /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n')
    t.match(await connection.closed, /^HTTP\/1\.1 400 [^]*\r\n\r\n$/)
  })
})

t.test('health', async t => {
  const server = await build(t, { DRAIN: '0' })

  t.test('/livez and /readyz are 200', async t => {
    for (const path of ['/livez', '/readyz']) {
      t.equal((await ask(server, path)).status, 200)
      t.equal((await ask(server, path, { method: 'HEAD' })).status, 200)
    }
  })

  t.test('/readyz is a 503 with the reason while it drains, /livez is not', async t => {
    await server.app.ringside.drain()
    const answer = await ask(server, '/readyz')
    isProblem(t, answer, 503, /stopping/)
    t.match(answer.headers['retry-after'], /^\d+$/)
    t.equal((await ask(server, '/livez')).status, 200)
  })
})

t.test('the API is described', async t => {
  const server = await build(t)
  const description = (await ask(server, '/openapi.json')).json() as {
    openapi: string
    paths: Record<string, Record<string, unknown>>
  }
  t.match(description.openapi, /^3\./)
  for (const [path, methods] of Object.entries({
    '/events': ['get', 'post'],
    '/events/{topic}': ['get', 'post'],
    '/livez': ['get'],
    '/readyz': ['get'],
    '/metrics': ['get']
  })) {
    const found = description.paths[path] ?? description.paths[path.replace('{topic}', '{*}')]
    for (const method of methods) t.ok(found?.[method], `${method} ${path}`)
  }

  const docs = await ask(server, '/docs')
  const page =
    docs.status === 200
      ? docs
      : await ask(server, new URL(String(docs.headers.location), `${server.url}/docs`).pathname)
  t.equal(page.status, 200)
  t.match(page.headers['content-type'], /^text\/html/)
})

t.test('GET / is the live page', async t => {
  const server = await build(t)
  const page = await ask(server, '/')
  t.equal(page.status, 200)
  t.match(page.headers['content-type'], /^text\/html/)
  t.match(page.text, /<title>Ringside/)

  for (const page of ['README.md', 'getting-started.md', 'guides/eventsource.md']) {
    const { status, headers } = await ask(server, `/docs/${page}`)
    t.equal(status, 200, page)
    t.equal(headers['content-type'], 'text/markdown; charset=utf-8')
  }
})

t.test('limits', async t => {
  t.test('MAX_TOPICS', async t => {
    const server = await build(t, { MAX_TOPICS: '2' })
    await listen(t, server, '/events/a?topic=b')
    isProblem(t, await ask(server, '/events/a?topic=b&topic=c'), 400, /3.*2/)
  })

  t.test('MAX_CONNECTIONS', async t => {
    const server = await build(t, { MAX_CONNECTIONS: '1' })
    const stream = await listen(t, server, '/events/a')
    const answer = await ask(server, '/events/a', { headers: { accept: '*/*' } })
    isProblem(t, answer, 503, /connections/)
    await publish(server, 'a', 'undisturbed')
    await stream.until(1)
  })
})

t.test('CORS', async t => {
  const preflight = (method: string, headers: string, origin = PAGE) => ({
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': method, 'access-control-request-headers': headers }
  })

  t.test('with origins that are listed', async t => {
    const server = await build(t, { CORS_ORIGIN: `${PAGE}, http://localhost:5173` })
    for (const origin of [PAGE, 'http://localhost:5173']) {
      const stream = await listen(t, server, '/events/a', { origin, accept: 'text/event-stream' })
      const { headers } = stream.response
      t.equal(headers['access-control-allow-origin'], origin)
      t.equal(headers['access-control-allow-credentials'], 'true')
      t.match(headers['access-control-expose-headers'], /Ringside-Cursor/)
      t.match(headers['vary'], /Origin/)
      const answer = await post(server, '/events/a', 'x', { origin })
      t.equal(answer.headers['access-control-allow-origin'], origin)
      t.match(answer.headers['access-control-expose-headers'], /Idempotent-Replayed/)
    }

    const allowed = await ask(server, '/events/a', preflight('GET', 'last-event-id'))
    t.equal(allowed.status, 204)
    t.equal(allowed.headers['access-control-allow-origin'], PAGE)
    t.match(allowed.headers['access-control-allow-headers'], /\bLast-Event-ID\b/i)
    t.match(allowed.headers['access-control-allow-methods'], /\bGET\b/)
    const toPost = await ask(
      server,
      '/events/a',
      preflight('POST', 'content-type, idempotency-key, authorization')
    )
    t.equal(toPost.status, 204)
    for (const name of ['Content-Type', 'Idempotency-Key', 'Authorization']) {
      t.match(toPost.headers['access-control-allow-headers'], new RegExp(name, 'i'))
    }
    t.match(toPost.headers['access-control-allow-methods'], /\bPOST\b/)

    for (const origin of [
      'https://evil.example',
      `${PAGE}.evil.example`,
      'http://page.example',
      'null',
      `${PAGE}:444`
    ]) {
      for (const answer of [
        await ask(server, '/livez', { headers: { origin } }),
        await ask(server, '/events/a', { method: 'HEAD', headers: { origin } }),
        await ask(server, '/events/a', preflight('GET', 'last-event-id', origin)),
        await ask(server, '/nothing', { headers: { origin } })
      ]) {
        t.not(answer.headers['access-control-allow-origin'], origin)
        t.not(answer.headers['access-control-allow-origin'], '*')
        t.match(answer.headers['vary'], /Origin/)
      }
    }
  })

  t.test('with * : anyone, never with credentials', async t => {
    const server = await build(t, { CORS_ORIGIN: '*' })
    const stream = await listen(t, server, '/events/a', {
      origin: 'https://any.example',
      accept: 'text/event-stream'
    })
    for (const { headers } of [
      stream.response,
      await ask(server, '/events/a', preflight('GET', 'last-event-id', 'https://any.example')),
      await ask(server, '/nothing', { headers: { origin: 'https://any.example' } })
    ]) {
      t.equal(headers['access-control-allow-origin'], '*')
      t.notOk('access-control-allow-credentials' in headers)
    }
  })

  t.test('by default for nobody', async t => {
    const server = await build(t)
    for (const answer of [
      await ask(server, '/livez', { headers: { origin: PAGE } }),
      await ask(server, '/events/a', preflight('GET', 'last-event-id'))
    ]) {
      t.notOk('access-control-allow-origin' in answer.headers)
      t.notOk('access-control-allow-credentials' in answer.headers)
    }
  })

  t.test('lets a page see what a turned away stream and a refusal say', async t => {
    const server = await build(t, { CORS_ORIGIN: PAGE, MAX_CONNECTIONS: '1' })
    await listen(t, server, '/events/a')
    for (const accept of ['text/event-stream', '*/*']) {
      const answer = await ask(server, '/events/a', { headers: { origin: PAGE, accept } })
      t.equal(answer.headers['access-control-allow-origin'], PAGE, `${answer.status}`)
      t.match(answer.headers['access-control-expose-headers'], /Retry-After/)
    }
  })
})

t.test('another method of a known path is 405, and says which there are', async t => {
  const server = await build(t)
  for (const [method, path, allow] of [
    ['PUT', '/events/x', 'GET, HEAD, POST'],
    ['DELETE', '/events', 'GET, HEAD, POST'],
    ['POST', '/dashboards/ops', 'DELETE, GET, HEAD, PATCH, PUT'],
    ['POST', '/livez', 'GET, HEAD']
  ] as const) {
    const answer = await ask(server, path, { method })
    isProblem(t, answer, 405, new RegExp(`^${method}: `))
    t.equal(answer.headers['allow'], allow)
  }
})

t.test('a body in a content coding is 415', async t => {
  const server = await build(t)
  const headers = { 'content-encoding': 'gzip', 'content-type': 'application/json' }
  const answer = await ask(server, '/events/x', { method: 'POST', headers, body: 'x' })
  isProblem(t, answer, 415, /Content-Encoding: gzip/)
  t.equal(answer.headers['accept-encoding'], 'identity')
})

t.test('a listed page may send any header, and say its origin in capitals', async t => {
  const server = await build(t, { CORS_ORIGIN: 'https://Page.example:443/,capacitor://localhost' })
  for (const origin of ['https://page.example', 'https://PAGE.example:443', 'capacitor://localhost']) {
    const headers = {
      origin,
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'baggage,sentry-trace,traceparent'
    }
    const answer = await ask(server, '/events/x', { method: 'OPTIONS', headers })
    t.equal(answer.headers['access-control-allow-origin'], origin)
    t.match(answer.headers['access-control-allow-headers'], 'baggage,sentry-trace,traceparent')
  }
})
