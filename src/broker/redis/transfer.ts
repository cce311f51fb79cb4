import type { Settings } from '../../config.ts'
import { TransferFailed, type Line } from '../transfer.ts'

export async function* exportRedis(_settings: Settings): AsyncGenerator<Line[]> {
  throw new TransferFailed('not yet')
}
export async function importRedis(_settings: Settings, _chunks: AsyncIterable<Uint8Array>): Promise<void> {
  throw new TransferFailed('not yet')
}
