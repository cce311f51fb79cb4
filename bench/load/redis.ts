import { hasProgram, LOAD_CORE } from '../machine.ts'
import { Server } from './server.ts'

/** What is missing of Redis; null when it is there. */
export function missingRedis(): string | null {
  const missing = ['redis-server', 'redis-benchmark'].filter(name => !hasProgram(name))
  return missing.length === 0 ? null : `${missing.join(', ')} (Debian: redis-server, redis-tools)`
}

/** Redis as it comes, on the load's core, without what would write to the disk in the midst of it. */
export function startRedis(): Promise<Server> {
  return Server.start(
    ({ port, directory }) => ({
      file: 'redis-server',
      args: ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory]
    }),
    { core: LOAD_CORE }
  )
}

export function redisUrl({ port }: Server): string {
  return `redis://127.0.0.1:${port}`
}
