/** snappyjs comes without types. Given a `Uint8Array` it returns one, in memory of its own. */
declare module "snappyjs" {
  export function compress(content: Uint8Array): Uint8Array
  /** Throws when the bytes are not its format or state more than `maxLength` bytes. */
  export function uncompress(compressed: Uint8Array, maxLength: number): Uint8Array
}
