import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { rollup } from '@rollup/wasm-node'
import t from 'tap'
import { minify } from 'terser'
import ts from 'typescript'
import { ask, build } from '../support/app.ts'
import { inTime } from '../support/inbox.ts'
import Fastify from 'fastify'
import { ringside } from '../../src/index.ts'

// a compiler and a bundler run
t.setTimeout(400_000)

const CLIENT = fileURLToPath(new URL('../../dist/client/client.js', import.meta.url))
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** What the server hands out. */
const HOSTED = fileURLToPath(new URL('../../dist/client/hosted/', import.meta.url))

/** The most that the streaming part may have in a bundle, minified and gzipped, in bytes. */
const MOST = 5150

/** The most that `/client.js` may have on the wire, in bytes. */
const MOST_HOSTED = 5000

/** What a bundler leaves of the client for a page that imports these names. */
async function bundleOf(...names: string[]): Promise<string> {
  const bundle = await rollup({
    input: 'page',
    plugins: [
      {
        name: 'page',
        resolveId: id => (id === 'page' ? id : null),
        load: id => (id === 'page' ? `export { ${names.join(', ')} } from ${JSON.stringify(CLIENT)}` : null)
      }
    ]
  })
  const { output } = await bundle.generate({})
  return (await minify(output[0].code, { module: true, ecma: 2020 })).code!
}

t.test('the streaming part is small, and each part comes without the other', async t => {
  const streaming = await bundleOf('subscribe')
  const size = gzipSync(streaming, { level: 9 }).length
  t.ok(size < MOST, `${size} bytes`)
  t.match(streaming, /EventSource/)
  t.notMatch(streaming, /WebSocket/)
  const socket = await bundleOf('connect')
  t.match(socket, /WebSocket/)
  t.notMatch(socket, /EventSource|BroadcastChannel/)
  t.comment(
    `streaming ${size} bytes, WebSocket ${gzipSync(socket).length}, all ${gzipSync(readFileSync(CLIENT)).length}`
  )
})

t.test('the server serves it, small, with its version and its sources', async t => {
  const server = await build(t)
  for (const name of ['client.js', 'client-socket.js']) {
    const script = await ask(server, `/${name}`)
    t.equal(script.status, 200)
    t.match(script.headers, { 'content-type': /^(text|application)\/javascript/, etag: String })
    t.equal(script.text, readFileSync(HOSTED + name, 'utf8'))
    t.ok(script.text.endsWith(`\n//# sourceMappingURL=${name}.map\n`))
    const map = (await ask(server, `/${name}.map`)).json() as { sources: string[]; sourcesContent: string[] }
    t.ok(map.sources.includes(`ringside/client/${name === 'client.js' ? 'stream' : 'socket'}.ts`))
    t.strictSame(
      map.sourcesContent,
      map.sources.map(path =>
        readFileSync(new URL(`../../src/client/${path.split('/').at(-1)}`, import.meta.url), 'utf8')
      )
    )
  }
  const { text } = await ask(server, '/client.js')
  t.match(text, `"${version}"`)
  const { length } = readFileSync(`${HOSTED}client.js.br`)
  t.ok(length < MOST_HOSTED, `${length} bytes`)
})

t.test('what the server hands out has the names of the package', async t => {
  const [hosted, whole] = (await Promise.all([import(`${HOSTED}client.js`), import(CLIENT)])) as object[]
  t.strictSame(Object.keys(hosted!), Object.keys(whole!))
})

t.test('only where there are pages', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(ringside, { settings: { DEMO: false } })
  t.equal((await app.inject('/client.js')).statusCode, 404)
})

t.test('it is imported by its name, in Node.js', async t => {
  const name = 'ringside-hub/client'
  const client = (await inTime(import(name), name)) as Record<string, unknown>
  t.equal(client['version'], version)
  t.type(client['subscribe'], 'function')
  t.type(client['connect'], 'function')
})

t.test('its types are good in a page and in Node.js', async t => {
  const folder = t.testdir({
    'user.ts': `
import { connect, subscribe, type Subscription } from 'ringside-hub/client'
const subscription: Subscription = subscribe<{ price: number }>('a', {
  url: 'http://a',
  onEvent: ({ data, topic }) => [data.price.toFixed(2), topic.length],
  onGap: ({ topics }) => topics.length,
  onState: (state, why) => [state === 'catching-up', why?.delay]
})
subscription.cursor?.length
const connection = connect({ url: new URL('http://a') })
const { unsubscribe } = await connection.subscribe('a', { onEvent: event => event.id.length })
await unsubscribe()
// @ts-expect-error a topic is text
subscribe(1, { onEvent() {} })
`
  })
  for (const [where, options] of Object.entries({
    page: { lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'], types: [] },
    node: { lib: ['lib.es2022.d.ts'], types: ['node'] }
  })) {
    const program = ts.createProgram([`${folder}/user.ts`], {
      ...options,
      ...{ strict: true, noEmit: true, skipDefaultLibCheck: true, target: ts.ScriptTarget.ES2022 },
      ...{ module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext }
    })
    const found = ts
      .getPreEmitDiagnostics(program)
      .map(
        ({ messageText, file }) => `${file?.fileName} ${ts.flattenDiagnosticMessageText(messageText, ' ')}`
      )
    t.strictSame(found, [], where)
  }
})

t.end()
