/** The file with the rules for topics (`TOPICS`): reads it, and says where it is wrong. */
import { readFileSync } from 'node:fs'
import { findNodeAtLocation, parseTree, printParseErrorCode, type Node, type ParseError } from 'jsonc-parser'
import { Type, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { ConfigError, type Settings } from '../config.ts'
import { Duration, Size } from '../config/kinds.ts'
import { feedOf, parsePattern } from '../event.ts'
import { Rules, type Rule } from './rules.ts'

/** So many rules are looked through for each topic that was not asked for lately. */
const MOST_RULES = 1000

const Pattern = Type.Refine(Type.String(), text => parsePattern(text) !== undefined)

/** Each member of a rule: what is allowed. */
const Members = {
  match: Object.assign(Pattern, {
    allowed: 'a pattern: segments joined by /, * for any one, ** at the end for any number'
  }),
  ring: Type.Integer({ minimum: 1, maximum: 1_000_000, allowed: 'a whole number from 1 to 1000000' }),
  ttl: Duration(undefined, 'How long', '1s'),
  maxEventBytes: Size(undefined, 'The largest event', '1'),
  anonymous: Type.Boolean({ allowed: 'true or false' }),
  presence: Type.Boolean({ allowed: 'true or false' }),
  rate: Type.Number({ minimum: 0.1, maximum: 100, allowed: 'a number from 0.1 to 100' }),
  maxSubscribers: Type.Integer({
    minimum: 0,
    maximum: 10_000_000,
    allowed: 'a whole number from 0 to 10000000'
  }),
  ephemeral: Type.Boolean({ allowed: 'true or false' })
} satisfies Record<keyof Rule, TSchema>

/** Durations and sizes may be bare numbers, as in settings. */
const MAY_BE_NUMBERS: readonly string[] = ['ttl', 'maxEventBytes']

type RuleSettings = Pick<Settings, 'TOPICS' | 'MAX_EVENT_BYTES' | 'RING_SIZE' | 'RING_TTL'>

/** The rules that the settings name, in force from the start. Throws a `ConfigError` with the line and the reason. */
export function readRules(settings: RuleSettings): Rules {
  return new Rules(settings, readList(settings))
}

/** Reads the rules again. Throws a `ConfigError` with the line and the reason; those that are in force stay so then. */
export function renewRules(rules: Rules, settings: RuleSettings): void {
  rules.replace(readList(settings))
}

function readList({ TOPICS: path, MAX_EVENT_BYTES }: RuleSettings): readonly Rule[] {
  if (path === '') return []
  const text = textOf(path)
  const wrong: Wrong = ({ offset }, reason) =>
    new ConfigError(`TOPICS=${path}: line ${text.slice(0, offset).split('\n').length}: ${reason}`)
  const errors: ParseError[] = []
  const root = parseTree(text, errors, { disallowComments: true })
  const [error] = errors
  if (error) throw wrong(error, `this is no JSON: ${wordsOf(error)}`)
  if (root?.type !== 'array') throw wrong(root ?? { offset: 0 }, 'it must be a list of rules')
  const rules = root.children ?? []
  if (rules.length > MOST_RULES) throw wrong(rules[MOST_RULES]!, `there are more than ${MOST_RULES} rules`)
  return rules.map(node => readRule(node, MAX_EVENT_BYTES, wrong))
}

/** Makes the error of what stands somewhere. */
type Wrong = (at: { readonly offset: number }, reason: string) => ConfigError

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').replace(/^\uFEFF/, '')
  } catch (error) {
    throw new ConfigError(`TOPICS=${path}: it can't be read: ${(error as Error).message}`)
  }
}

/** `PropertyNameExpected` as words. */
function wordsOf({ error }: ParseError): string {
  return printParseErrorCode(error).replace(/\B[A-Z]/g, letter => ` ${letter.toLowerCase()}`)
}

function readRule(node: Node, mostBytes: number, wrong: Wrong): Rule {
  if (node.type !== 'object') throw wrong(node, 'a rule must be an object')
  const rule = new Map<string, unknown>()
  for (const { children: [name, value] = [] } of node.children ?? []) {
    const member = name!.value as string
    if (!Object.hasOwn(Members, member))
      throw wrong(name!, `${member}: there is no such member; there is ${Object.keys(Members).join(', ')}`)
    if (rule.has(member)) throw wrong(name!, `${member}: it is given twice`)
    rule.set(member, readMember(member as keyof Rule, value!, wrong))
  }
  if (!rule.has('match')) throw wrong(node, 'match: it is missing; a rule must say which topics it is for')
  const read = Object.fromEntries(rule) as unknown as Rule
  checkTogether(read, node, mostBytes, wrong)
  return read
}

function readMember(name: keyof Rule, node: Node, wrong: Wrong): unknown {
  const schema: TSchema = Members[name]
  const given: unknown = node.type === 'object' || node.type === 'array' ? node.type : node.value
  const value = typeof given === 'number' && MAY_BE_NUMBERS.includes(name) ? String(given) : given
  try {
    // decoding alone would take a text for a number
    if (!Value.Check(schema, value)) throw new TypeError()
    return Value.Decode(schema, value)
  } catch {
    const { allowed } = schema as TSchema & { allowed: string }
    throw wrong(node, `${name}: ${JSON.stringify(given)} is not allowed; it must be ${allowed}`)
  }
}

/** What each member says may be allowed, and not what they say together. */
function checkTogether(rule: Rule, node: Node, most: number, wrong: Wrong) {
  const { match, maxEventBytes = 0, ephemeral } = rule
  const at = (name: keyof Rule) => findNodeAtLocation(node, [name]) ?? node
  if (maxEventBytes > most)
    throw wrong(
      at('maxEventBytes'),
      `maxEventBytes: ${maxEventBytes} is more than any event may have (MAX_EVENT_BYTES=${most})`
    )
  if (!ephemeral) return
  for (const name of ['ring', 'ttl'] as const) {
    if (rule[name] !== undefined)
      throw wrong(at(name), `${name}: it can't stand beside ephemeral: of such a topic nothing is kept`)
  }
  const feed = feedOf(match)
  if (feed)
    throw wrong(
      at('ephemeral'),
      `ephemeral: what is written through /${feed} is kept as states: it must be stored`
    )
}
