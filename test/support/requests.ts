import { operationsOf, type Description, type Operation } from './description.ts'

/** A request as it goes out: its path is as it stands in the first line, its headers one after the other. */
export interface FuzzRequest {
  readonly method: string
  readonly path: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: Buffer | null
}

/** A request that is still being made. */
interface Draft {
  method: string
  /** The path as described, and what stands for its parameters, encoded. */
  template: string
  params: Record<string, string>
  /** Encoded. */
  query: [name: string, value: string][]
  headers: [name: string, value: string][]
  body: Buffer | null
}

/** What a request calls the server, where it doesn't say something else. */
export const HOST = 'localhost'

const words = (text: string) => text.split(' ')
const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth)

/** A header that no answer may have: whoever gets it in has broken out of another one. */
export const INJECTED = 'x-injected'

/** What somebody might take for something else: as a name, a topic, a number, a cursor, a part of a path or a line. */
const ODD: readonly string[] = [
  ...['', ' ', '  a', ' 1', '1 ', '*, "a"'],
  ...words('* ** a/* */a a//b / /a a/ . .. ../.. a/../b ~ |'),
  ...words('\0 \n a\nb \r\n\r\n \t \u007f \u0085 \u2028 \u202e \ufeff \ufffd \u00ad'),
  ...[`\r\n${INJECTED}: 1`, `a\n${INJECTED}: 1\n\n`, `\u560d\u560a${INJECTED}: 1`, 'a\nid: 1-0\ndata: x\n\n'],
  ...words('\u00e9 e\u0301 \u{1f600} \u6771\u4eac'),
  ...['A'.repeat(257), '\u{1f600}'.repeat(64), 'x'.repeat(300), 'x'.repeat(1024), 'x'.repeat(1025)],
  ...['x'.repeat(5000), 'a/'.repeat(127) + 'a', 'a/'.repeat(600)],
  ...words('__proto__ constructor prototype toString hasOwnProperty length null undefined true false'),
  ...words('0 -0 -1 1 1.5 1e3 1e400 0x10 007 +1 NaN Infinity 2147483648 4294967296 9007199254740993'),
  ...words('1001 101 0.05 1970-01-01 10m -10m 1y 999999999d 0s 2026-02-30T25:61:61Z'),
  ...['9'.repeat(20), '9'.repeat(400), '0'.repeat(128) + '-0'],
  ...words('0-0 1-0 1- -1-0 1-0-0 1_0 0-18446744073709551615 9999999999999-0 1-0~1-0 1.1-0 $ + - >'),
  ...words('18446744073709551615-18446744073709551615 1795415443570-0 1795415443570-0~'),
  ...words('" \' ` \\ <script> ${a} {{a}} % %00 %2e %2F %s & = # ? ; , ,,'),
  ...words('{} [] {"a":1} "a" [1,2 W/"1-0" "1-0"'),
  ...words('message cursor gap goodbye open error text/event-stream'),
  ...words('tickers/AAPL dashboards/ops notifications/alice tickers tickers/*')
]

/** What JSON may hold where something else is due; as text, since not all of it is a value. */
const ODD_JSON: readonly string[] = [
  ...words('null true 0 -1 1.5 1e400 -1e400 1e-400 123456789012345678901234567890 "" [] {}'),
  ...words('"\\u0000" "\\ud800" "a\\nb" "*" "a/b" "__proto__" [[]] [null] {"a":null} {"":1} {"toJSON":1}'),
  ...words('{"__proto__":{"a":1}} {"constructor":{"prototype":{"a":1}}} {"a":1,"a":2} {"length":1e9}'),
  ...words('"1970-01-01T00:00:00Z" [1,"a",null,{}]'),
  ...[`"${'x'.repeat(5000)}"`, `"${'\\"'.repeat(2500)}"`, '1'.repeat(4000), `[${'1,'.repeat(1500)}1]`],
  ...[nested('[', ']', 150), nested('[', ']', 2000), nested('{"a":', '}', 150).replace('}', '1}')],
  `{${Array.from({ length: 300 }, (_, index) => `"k${index}":${index}`).join()}}`
]

/** What no parser of JSON takes, or takes for something else than its writer. */
const NO_JSON: readonly (string | Buffer)[] = [
  ...words(' { [ " nul undefined {\'a\':1} {a:1} [1,] {"a":1,} 01 +1 .5 1. NaN []] "\t" "\\x" "\\u12"'),
  ...words('{"a":1}{"b":2} /**/{} \ufeff{} \u00a0{} {"a":1}\0 <a/> a=b {}\n{ \n\n\n'),
  ...[' ', '['.repeat(5000), '[1,'.repeat(3000), 'x'.repeat(70_000), '{"topic":"a","data":1}\r\n\r\n{}'],
  ...[
    [0xff, 0xfe],
    [0x22, 0xed, 0xa0, 0x80, 0x22],
    [0xc3],
    [0x22, 0xff, 0x22],
    Array<number>(20).fill(0)
  ].map(bytes => Buffer.from(bytes))
]

const MEDIA_TYPES: readonly string[] = [
  ...['application/json', 'application/json; charset=utf-8', 'Application/JSON;x="y;z"', ' '],
  ...words('application/json;charset=utf-16 text/plain text/html text/plain;a=b application/x-ndjson'),
  ...words(
    'application/octet-stream application/merge-patch+json application/problem+json text/event-stream'
  ),
  ...words('application/x-www-form-urlencoded multipart/form-data multipart/form-data;boundary=a'),
  ...words(' / a a/b/c */* application/ /json application/json,text/plain ; __proto__ constructor'),
  ...['application/json\u00a0', 'x'.repeat(2000)]
]

const ACCEPTS: readonly string[] = [
  ...words('text/event-stream application/x-ndjson application/json */*'),
  ...words('text/* application/* text/html a/b  , ; a * TEXT/EVENT-STREAM */json */*;q=0'),
  ...words('text/event-stream;q=0 application/json;q=x application/json;q=1.1'),
  ...['application/json;q=0.5, text/event-stream;q=0.4', 'text/event-stream; charset=utf-8'],
  ...['text/event-stream, */*', 'image/*, */*;q=0.1', 'a/b,'.repeat(500), 'x'.repeat(3000)]
]

const ODD_HEADERS: readonly (readonly [string, string])[] = [
  ['expect', '100-continue'],
  ['expect', 'nonsense'],
  ['te', 'trailers'],
  ['range', 'bytes=0-1'],
  ['if-range', '"a"'],
  ['if-match', '*'],
  ['if-match', '"a", W/"b", "c'],
  ['if-none-match', '*'],
  ['if-none-match', 'W/"1-0", "1-0"'],
  ['if-modified-since', 'Thu, 01 Jan 2099 00:00:00 GMT'],
  ['if-unmodified-since', 'nonsense'],
  ['origin', 'null'],
  ['origin', 'https://evil.example'],
  ['origin', 'nonsense'],
  ['access-control-request-method', 'PUT'],
  ['access-control-request-headers', 'x, y'],
  ['access-control-request-private-network', 'true'],
  ['cookie', 'ringside_token=x; ringside_token=y; =; ;'],
  ['cookie', '__proto__=x'],
  ['authorization', 'Bearer x.y.z'],
  ['authorization', 'Basic Og=='],
  ['authorization', 'Bearer'],
  ['x-forwarded-for', '1.2.3.4, nonsense'],
  ['x-forwarded-host', 'evil.example'],
  ['x-forwarded-proto', 'gopher'],
  ['forwarded', 'for="_x";proto=https'],
  ['x-http-method-override', 'DELETE'],
  ['x-original-url', '/metrics'],
  ['accept-encoding', 'br;q=1, gzip, *;q=0'],
  ['accept-language', '*'],
  ['accept-charset', 'utf-16'],
  ['content-encoding', 'gzip'],
  ['content-encoding', 'identity'],
  ['content-language', 'de'],
  ['host', ''],
  ['host', 'evil.example:99999'],
  ['host', 'a b'],
  ['user-agent', ''],
  ['pragma', 'no-cache'],
  ['cache-control', 'only-if-cached'],
  ['via', '1.1 x'],
  ['max-forwards', '0'],
  ['sec-fetch-mode', 'navigate'],
  ['last-event-id', '\u00e9\u00ff"'],
  ['idempotency-key', '"quoted"'],
  ['x-long', 'y'.repeat(5000)],
  ['x-longer', 'y'.repeat(17_000)],
  ['__proto__', 'x'],
  ['constructor', 'x']
]

const METHODS = words('GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND QUERY LINK')
const BAD_ESCAPES = words('% %z %zz %c3 %ff%fe %ed%a0%80 %00 %0a %0d%0a %2f %252f %u0041 + %e2%80%ae')

/** What is there, so that some requests find something. */
const TOPICS = words('a b a/b deep/er/topic tickers/AAPL dashboards/ops notifications/alice a/*')
const IDS = words('ops sales empty __proto__ \u00e9')
const USERS = words('alice bob carol constructor')
const SYMBOLS = words('AAPL MSFT BTC-USD ^GSPC __proto__')
const KEYS = Array.from({ length: 20 }, (_, index) => `key-${index}`)

/** Requests at random, made of what a description says: as it says, nearly so, and not at all. */
export class Requests {
  /** Ids that the server has given, so that some cursors mean something. */
  readonly #ids: string[] = ['1795415443570-0']
  /** What alice was notified of. */
  readonly #inbox: string[] = ['1795415443570-0']
  readonly #description: Description
  readonly #operations: ReturnType<typeof operationsOf>
  readonly #random: () => number
  readonly #tokens: readonly (string | null)[]

  /** `random`: numbers from 0 to 1. `tokens`: who may ask, each as often as the others; null for nobody. */
  constructor(description: Description, random: () => number, tokens: readonly (string | null)[]) {
    this.#description = description
    this.#operations = operationsOf(description)
    this.#random = random
    this.#tokens = tokens
  }

  next(): FuzzRequest {
    const draft = this.#valid(this.#pick(this.#operations))
    this.#authorize(draft, this.#pick(this.#tokens))
    const kind = this.#random()
    const mutations = kind < 0.35 ? 0 : kind < 0.75 ? 1 : this.#whole(2, 5)
    for (let count = 0; count < mutations; count++) this.#mutate(draft)
    const path = draft.template.replace(/\{(\w+)\}/g, (_, name: string) => draft.params[name]!)
    const query = draft.query.map(([name, value]) => `${name}=${value}`).join('&')
    return { ...draft, path: query === '' ? path : `${path}?${query}` }
  }

  /** Remembers the ids in an answer. */
  learn(text: string): void {
    for (const [list, most, pattern] of [
      [this.#ids, 50, /"(\d{13}-\d+)"/],
      // what is older is no longer there
      [this.#inbox, 2, /"alice":"([\d-]+)"/]
    ] as const) {
      const id = pattern.exec(text)?.[1]
      if (id !== undefined && list.push(id) > most) list.shift()
    }
  }

  // --- as it is described ---

  #valid({
    path,
    method,
    parameters = [],
    requestBody
  }: Operation & { path: string; method: string }): Draft {
    const draft: Draft = {
      method: method.toUpperCase(),
      template: path,
      params: {},
      query: [],
      headers: [],
      body: null
    }
    for (const { in: place, name, required, schema } of parameters) {
      if (
        !required &&
        !this.#chance(name === 'wait' ? 0.03 : name === 'topic' || name === 'user' ? 0.9 : 0.15)
      )
        continue
      const value = this.#parameter(path, name, schema)
      if (place === 'path') draft.params[name] = this.#encode(value)
      else if (place === 'query') draft.query.push([name, this.#encode(value)])
      else draft.headers.push([name, headerValue(value)])
    }
    if (this.#chance(0.7)) draft.headers.push(['Accept', this.#pick(ACCEPTS.slice(0, 4))])
    if (requestBody) {
      const [type, { schema }] = this.#pick(Object.entries(requestBody.content))
      const json = /json$/.test(type)
      draft.headers.push(['Content-Type', type])
      const one = () => JSON.stringify(this.#value(schema, ''))
      draft.body = Buffer.from(
        type.endsWith('ndjson')
          ? `${this.#eventLine()}\n${this.#eventLine()}`
          : json
            ? one()
            : this.#pick(ODD)
      )
    }
    return draft
  }

  /** Mostly as it is meant: a cookie needs an origin, and an address is seen by others. */
  #authorize({ headers, query }: Draft, token: string | null): void {
    if (token === null) return
    const way = this.#random()
    if (way < 0.7) headers.push(['Authorization', `Bearer ${token}`])
    else if (way < 0.85) query.push(['token', encodeURIComponent(token)])
    else headers.push(['Cookie', `ringside_token=${token}`])
    if (way > 0.9) headers.push(['Origin', `http://${HOST}`])
  }

  #eventLine(): string {
    return JSON.stringify(this.#value(this.#description.components.schemas['NewEvent'] as Schema, ''))
  }

  #parameter(path: string, name: string, schema: Schema): string {
    if (name === 'id') return this.#pick(path.startsWith('/dashboards') ? IDS : this.#inbox)
    if (name === 'user' && path.includes('{id}')) return 'alice'
    if (name === 'symbols') return this.#pick(['*', 'AAPL', 'AAPL,MSFT'])
    if (name === 'since') return this.#pick(['10s', '10m', '1h', '2026-01-31T12:00:00Z'])
    if (name === 'wait') return '1'
    if (/^(if-match|if-none-match)$/i.test(name)) return this.#pick(['*', `"${this.#pick(this.#ids)}"`])
    if (/after|last.?event.?id/i.test(name)) return this.#pick(this.#ids)
    return String(this.#value(schema, name))
  }

  /** A value that its schema allows; `name` says what it is for. */
  #value(given: Schema, name: string): unknown {
    const schema = given.$ref
      ? (this.#description.components.schemas[given.$ref.split('/').at(-1)!] as Schema)
      : given
    const { anyOf, type, properties = {}, required = [] } = schema
    if (anyOf) return this.#value(this.#pick(anyOf), name)
    if ('const' in schema) return schema.const
    if (schema.enum) return this.#pick(schema.enum)
    switch (type) {
      case 'string':
        return this.#text(name)
      case 'boolean':
        return this.#chance(0.5)
      case 'integer':
      case 'number':
        return this.#number(schema)
      case 'array':
        return Array.from({ length: this.#whole(schema.minItems ?? 1, 3) }, () =>
          this.#value(schema.items!, name)
        )
      case 'object': {
        const names = Object.keys(properties).filter(each => required.includes(each) || this.#chance(0.3))
        const members = names.map((each): [string, unknown] => [each, this.#value(properties[each]!, each)])
        if (schema.patternProperties || this.#chance(0.1)) members.push([this.#pick(ODD), this.#anything()])
        return Object.fromEntries(
          schema.additionalProperties === false ? members.slice(0, names.length) : members
        )
      }
      case undefined:
      default:
        return this.#anything()
    }
  }

  #text(name: string): string {
    if (name === 'topic') return this.#pick(TOPICS)
    if (name === 'to' || name === 'user') return this.#pick(USERS)
    if (name === 'symbol') return this.#pick(SYMBOLS)
    if (name === 'type') return this.#pick(['message', 'quote', 'A.b:c-d_9'])
    if (name === 'ids') return this.#pick(this.#ids)
    if (/idempotency/i.test(name)) return this.#pick(KEYS)
    return this.#pick(['text', 'a b', '\u00e9', '\u{1f600}', ...(name === 'title' ? [] : [''])])
  }

  #number({ type, minimum = -1000, maximum = 1000 }: Schema): number {
    const most = Math.min(maximum, 3600)
    return this.#pick([
      minimum,
      most,
      type === 'integer' ? this.#whole(minimum, most) : minimum + this.#random() * (most - minimum)
    ])
  }

  #anything(): unknown {
    try {
      return JSON.parse(this.#pick(ODD_JSON.slice(0, 26)))
    } catch {
      return null
    }
  }

  // --- not as it is described ---

  #mutate(draft: Draft): void {
    const of: readonly (() => void)[] = [
      () => this.#mutateQuery(draft),
      () => this.#mutateQuery(draft),
      () => this.#mutatePath(draft),
      () => this.#mutateHeaders(draft),
      () => this.#mutateHeaders(draft),
      () => this.#mutateBody(draft),
      () => this.#mutateBody(draft),
      () => (draft.method = this.#pick(METHODS))
    ]
    this.#pick(of)()
  }

  #mutateQuery({ query }: Draft): void {
    const known = words('topic after rewind since rate envelope heartbeat limit user symbols type ttl token')
    const index = this.#whole(0, query.length - 1)
    const odd = () => this.#encode(this.#pick(ODD))
    const of: readonly (() => unknown)[] = [
      () => query.splice(index, 1),
      () => query.push([this.#pick(known), odd()]),
      () => query.push([odd(), odd()]),
      () => query.push([this.#pick(known), this.#pick(BAD_ESCAPES)]),
      () => query.push(...Array.from({ length: 150 }, (): [string, string] => ['topic', 'a'])),
      ...(query.length > 0
        ? [
            () => (query[index]![1] = odd()),
            () => (query[index]![1] = this.#pick(BAD_ESCAPES)),
            () => query.push([query[index]![0], odd()]),
            () => (query[index]![0] += this.#pick(['[]', '[0]', '[a]', '[__proto__]', '.a', '%00', '%20']))
          ]
        : [])
    ]
    this.#pick(of)()
  }

  #mutatePath(draft: Draft): void {
    const names = Object.keys(draft.params)
    const of: readonly (() => unknown)[] = [
      () => (draft.template += '/'),
      () => (draft.template += `/${this.#encode(this.#pick(ODD))}`),
      () => (draft.template += this.#pick(BAD_ESCAPES)),
      () => (draft.template = draft.template.replace('/', '//')),
      () => (draft.template = draft.template.toUpperCase().replace(/\{\w+\}/, name => name.toLowerCase())),
      () =>
        (draft.template = draft.template.replace(/[a-z]/, letter => `%${letter.charCodeAt(0).toString(16)}`)),
      () => (draft.template = `/.${draft.template}`),
      ...names.flatMap(name => [
        () => (draft.params[name] = this.#encode(this.#pick(ODD))),
        () => (draft.params[name] = this.#encode(this.#pick(ODD))),
        () => (draft.params[name] += this.#pick(BAD_ESCAPES))
      ])
    ]
    this.#pick(of)()
  }

  #mutateHeaders({ headers }: Draft): void {
    const index = this.#whole(0, headers.length - 1)
    const replace = (name: string, value: string) => {
      const at = headers.findIndex(([each]) => each === name)
      if (at >= 0) headers[at] = [name, value]
      else headers.push([name, value])
    }
    const of: readonly (() => unknown)[] = [
      () => headers.push([...this.#pick(ODD_HEADERS)]),
      () => headers.push([...this.#pick(ODD_HEADERS)]),
      () => replace('Accept', headerValue(this.#pick(ACCEPTS))),
      () => replace('Content-Type', headerValue(this.#pick(MEDIA_TYPES))),
      () =>
        headers.push(['connection', 'upgrade'], ['upgrade', this.#pick(['websocket', 'h2c', 'nonsense'])]),
      () => headers.push(...Array.from({ length: 90 }, (_, count): [string, string] => [`x-${count}`, 'y'])),
      ...(headers.length > 0
        ? [
            () => headers.splice(index, 1),
            () => (headers[index]![1] = headerValue(this.#pick(ODD))),
            () => headers.push([headers[index]![0], headerValue(this.#pick(ODD))])
          ]
        : [])
    ]
    this.#pick(of)()
  }

  #mutateBody(draft: Draft): void {
    const text = draft.body?.toString() ?? ''
    const at = this.#whole(0, text.length)
    const of: readonly (() => unknown)[] = [
      () => (draft.body = null),
      () => (draft.body = Buffer.from(this.#pick(NO_JSON))),
      () => (draft.body = Buffer.from(this.#pick(ODD_JSON))),
      () => (draft.body = Buffer.from(text.slice(0, at))),
      () => (draft.body = Buffer.from(text.slice(0, at) + this.#pick(ODD) + text.slice(at))),
      // a member, by another value or another name
      () => (draft.body = Buffer.from(text.replace(/:("[^"]*"|[\w.-]+)/, () => `:${this.#pick(ODD_JSON)}`))),
      () =>
        (draft.body = Buffer.from(
          text.replace(/("[^"]*"|[\w.-]+)([,}\]])/, (_, _value, after) => `${this.#pick(ODD_JSON)}${after}`)
        )),
      () => (draft.body = Buffer.from(text.replace(/"(\w+)":/, () => `${JSON.stringify(this.#pick(ODD))}:`))),
      () =>
        (draft.body = Buffer.from(
          `[${Array.from({ length: this.#pick([0, 2, text.length < 10_000 ? 1001 : 3]) }, () => text || '1').join()}]`
        )),
      () => (draft.body = Buffer.from(text + ' '.repeat(this.#pick([1, 5000, 20_000]))))
    ]
    this.#pick(of)()
  }

  // --- chances ---

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!
  }

  #whole(least: number, most: number): number {
    return least + Math.floor(this.#random() * (Math.max(least, most) - least + 1))
  }

  #chance(of: number): boolean {
    return this.#random() < of
  }

  /** Mostly as it should be; else only where the line would end. */
  #encode(text: string): string {
    if (this.#chance(0.85)) return encodeURIComponent(text)
    return Buffer.from(text)
      .toString('latin1')
      .replace(/[^\x21-\xff]/g, encodeURIComponent)
  }
}

interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Schema[]
  readonly items?: Schema
  readonly minItems?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly properties?: Readonly<Record<string, Schema>>
  readonly patternProperties?: object
  readonly additionalProperties?: boolean
  readonly required?: readonly string[]
}

/** What a header may carry of a text: its UTF-8, without what would end it. */
function headerValue(text: string): string {
  return Buffer.from(text)
    .toString('latin1')
    .replace(/[^\t\x20-\x7e\x80-\xff]/g, '')
}
