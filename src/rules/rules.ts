import { feedOf, isOperators, isWildcard, parsePattern, permits, type Pattern } from '../event.ts'
import { Denied, wrong } from '../problem.ts'

/** What a rule says of the topics that its pattern covers. Whatever it leaves out is as the settings have it. */
export interface Rule {
  /** A pattern, as tokens have them. */
  readonly match: string
  /** How many events of a topic are kept. */
  readonly ring?: number
  /** How long an event is kept, and how long a state after the last event of its topic; in milliseconds. */
  readonly ttl?: number
  /** The largest event, in bytes. */
  readonly maxEventBytes?: number
  /** Whether who has no token may read. */
  readonly anonymous?: boolean
  /** Whether there are members and signals. */
  readonly presence?: boolean
  /** At how many events a second each subscriber is served at most, for each topic. */
  readonly rate?: number
  /** How many subscribers a topic may have in this process. */
  readonly maxSubscribers?: number
  /** Whether events are handed to who listens now, and never stored. Not so of what feeds write, whatever a rule says. */
  readonly ephemeral?: boolean
}

/** What holds for a topic: its rule, with what the settings say where that says nothing. */
export interface TopicRule extends Rule {
  readonly ring: number
  readonly ttl: number
  /** How long a state is kept after the last event of its topic, in milliseconds; Infinity where no rule says so. */
  readonly stateTtl: number
}

/** What holds for the topics of a filter together. */
export interface FilterRule {
  /** All that may hold for one of them. */
  readonly rules: readonly TopicRule[]
  /** The longest and the shortest time that any of their events is kept, in milliseconds. */
  readonly longest: number
  readonly shortest: number
  /** How many events of one topic are kept at most; of a wildcard never less than the settings say. */
  readonly ring: number
}

interface Compiled {
  readonly pattern: Pattern
  readonly rule: TopicRule
}

/** Of how many topics and filters it is remembered what holds for them. */
const REMEMBERED = 10_000

/** What holds for topics that no rule is for. */
export interface RuleDefaults {
  readonly RING_SIZE: number
  readonly RING_TTL: number
}

/**
 * The rules for topics that are in force (`TOPICS`): the first whose pattern covers a topic holds for it. They may be
 * replaced at any time, so that what holds is asked for when it is needed.
 */
export class Rules {
  readonly #settings: RuleDefaults
  /** What holds where there is no rule. */
  readonly default: TopicRule
  readonly #all: FilterRule
  /** What holds for the operator's topics, whatever the rules say. */
  readonly #operators: FilterRule
  #list: readonly Rule[] = []
  #compiled: readonly Compiled[] = []
  readonly #topics = new Map<string, TopicRule>()
  readonly #filters = new Map<string, FilterRule>()
  readonly #listeners: (() => void)[] = []
  #longest: number

  /** Throws for what is no pattern: see `readRules`. */
  constructor(settings: RuleDefaults, list: readonly Rule[] = []) {
    this.#settings = settings
    this.default = this.#resolve({ match: '**' })
    const { ring, ttl } = this.default
    this.#all = { rules: [this.default], longest: ttl, shortest: ttl, ring }
    const own = this.#resolve({ match: '$ringside/**', anonymous: false, presence: false, ephemeral: true })
    this.#operators = { rules: [own], longest: ttl, shortest: ttl, ring }
    this.#longest = ttl
    this.replace(list)
  }

  /** As they were given, in their order. */
  get list(): readonly Rule[] {
    return this.#list
  }

  /** The longest time that events of any topic are kept, in milliseconds: a cursor may be so old. */
  get longest(): number {
    return this.#longest
  }

  /** From now on these hold. */
  replace(list: readonly Rule[]): void {
    this.#compiled = list.map(rule => {
      const pattern = parsePattern(rule.match)
      if (!pattern) throw new Error(`${rule.match} is not a pattern`)
      return { pattern, rule: this.#resolve(rule) }
    })
    this.#list = list
    this.#longest = Math.max(this.default.ttl, ...this.#compiled.map(({ rule }) => rule.ttl))
    this.#topics.clear()
    this.#filters.clear()
    for (const listener of this.#listeners) listener()
  }

  /** Calls back whenever others hold. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** What holds for a topic. */
  of(topic: string): TopicRule {
    if (isOperators(topic)) return this.#operators.rules[0]!
    if (this.#compiled.length === 0) return this.default
    return remembered(this.#topics, topic, () => {
      const segments = topic.split('/')
      const found = this.#compiled.find(({ pattern }) => overlaps(pattern, segments, false))
      const rule = found?.rule ?? this.default
      // quotes, dashboards and inboxes are states that must be kept
      return rule.ephemeral && feedOf(topic) ? { ...rule, ephemeral: false } : rule
    })
  }

  /** What holds for the topics of a filter. */
  over(filter: string): FilterRule {
    if (isOperators(filter)) return this.#operators
    if (this.#compiled.length === 0) return this.#all
    return remembered(this.#filters, filter, () => {
      const isWild = isWildcard(filter)
      const rules = isWild ? this.#allOver(filter) : [this.of(filter)]
      return {
        rules,
        longest: Math.max(...rules.map(({ ttl }) => ttl)),
        shortest: Math.min(...rules.map(({ ttl }) => ttl)),
        ring: Math.max(isWild ? this.default.ring : 0, ...rules.map(({ ring }) => ring))
      }
    })
  }

  /** The longest time that any event of these filters' topics is kept, in milliseconds. */
  longestOf(filters: readonly string[]): number {
    if (this.#compiled.length === 0) return this.default.ttl
    return filters.reduce((longest, filter) => Math.max(longest, this.over(filter).longest), 0)
  }

  /** Those that may hold for a topic of a wildcard: none behind the first that covers all of it. */
  #allOver(wildcard: string): TopicRule[] {
    const segments = wildcard.split('/')
    const found: TopicRule[] = []
    for (const { pattern, rule } of this.#compiled) {
      if (overlaps(pattern, segments, true)) found.push(rule)
      if (permits([pattern], wildcard)) return found
    }
    return [...found, this.default]
  }

  #resolve(rule: Rule): TopicRule {
    const { RING_SIZE, RING_TTL } = this.#settings
    return { ring: RING_SIZE, ttl: RING_TTL, stateTtl: rule.ttl ?? Infinity, ...rule }
  }

  // --- what is asked of them at the doors ---

  /**
   * The rate at which a subscription of these filters is served: the one that is asked for, unless a rule has a slower one;
   * undefined for none. Throws a `Problem` where only some of the topics have a rate, and none is asked for: a conflated
   * view would leave out events of the others.
   */
  rateOf(filters: readonly string[], asked: number | undefined): number | undefined {
    if (this.#compiled.length === 0) return asked
    const rules = filters.flatMap(filter => this.over(filter).rules.map(({ rate }) => ({ filter, rate })))
    const slowest = Math.min(...rules.map(({ rate = Infinity }) => rate))
    if (slowest === Infinity) return asked
    if (asked !== undefined) return Math.min(asked, slowest)
    const free = rules.find(({ rate }) => rate === undefined)
    if (!free) return slowest
    const limited = rules.find(({ rate }) => rate !== undefined)!
    throw wrong(
      'refused',
      'topic',
      `${JSON.stringify(limited.filter)} is served at ${limited.rate} a second at most, and not all that is asked for with it; ask for a rate, or apart`
    )
  }

  /** Whether who has no token may read all that a filter covers; `isElse`: whether where no rule says so. */
  isAnonymous(filter: string, isElse: () => boolean): boolean {
    if (this.#compiled.length === 0) return isElse()
    return this.over(filter).rules.every(({ anonymous }) => anonymous ?? isElse())
  }

  /** Whether there is anything that who has no token may read. */
  get areAnonymous(): boolean {
    return this.#list.some(({ anonymous }) => anonymous)
  }

  /** Throws `Denied` for a topic without members and signals. */
  requirePresence(topic: string): void {
    if (this.of(topic).presence ?? true) return
    const message = `${JSON.stringify(topic)} has neither members nor signals`
    throw new Denied('forbidden', `topic: ${message}`, [{ path: 'topic', message }])
  }

  /** How many subscribers a filter may have in this process; Infinity for any number. */
  mostSubscribers(filter: string): number {
    if (this.#compiled.length === 0) return Infinity
    return Math.min(...this.over(filter).rules.map(({ maxSubscribers = Infinity }) => maxSubscribers))
  }
}

/** Whether a pattern covers a topic of these segments; of a wildcard, whether it covers any of its topics. */
function overlaps(pattern: Pattern, segments: readonly string[], isWild: boolean): boolean {
  const isOpen = pattern.at(-1) === '**'
  const fixed = isOpen ? pattern.slice(0, -1) : pattern
  if (isOpen ? segments.length < fixed.length : segments.length !== fixed.length) return false
  const any = isWild ? segments.length - 1 : -1
  return fixed.every((segment, index) => segment === '*' || index === any || segment === segments[index])
}

function remembered<T>(known: Map<string, T>, name: string, find: () => T): T {
  const found = known.get(name)
  if (found) return found
  if (known.size >= REMEMBERED) known.clear()
  const made = find()
  known.set(name, made)
  return made
}
