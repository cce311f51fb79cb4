import { join } from 'node:path'
import { Instance } from './instance.ts'

export interface FleetOptions {
  /** The built command line. */
  readonly cli: string
  /** The environment of each instance. */
  readonly environments: readonly Record<string, string>[]
  /** Where the instances' logs go. */
  readonly dir: string
}

/** The instances of a run. */
export class Fleet {
  /** Instances that ended although nobody wanted it. */
  readonly deaths: string[] = []
  readonly #options: FleetOptions
  readonly #instances: Instance[] = []
  #started = 0

  constructor(options: FleetOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#options.environments.length
  }

  /** The instance in a place, running or not. */
  at(slot: number): Instance {
    return this.#instances[slot]!
  }

  /** Starts an instance in a place; whatever was there no longer is. Resolves once it listens. */
  async start(slot: number): Promise<void> {
    const { cli, environments, dir } = this.#options
    const name = `instance-${slot}-${++this.#started}`
    const instance = await Instance.start(name, cli, environments[slot]!, join(dir, `${name}.log`))
    this.#instances[slot] = instance
    void instance.exited.then(code => {
      // killed, or stopped by its signal
      if (code !== 0 && code !== 137) this.deaths.push(`${name} ended with ${code}`)
    })
  }

  async stop(): Promise<void> {
    await Promise.all(this.#instances.map(instance => instance.kill()))
  }
}
