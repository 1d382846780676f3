package samples;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.UUID;

/**
 * The systems outside, played by files: a system is a file in SYSTEMS_DIR, a change is a line in
 * it.
 *
 * <p>Create {@code <system>.down} to make one of them fail, and remove it to bring it back.
 */
final class Systems {
  private static final Path DIRECTORY =
      Path.of(System.getenv().getOrDefault("SYSTEMS_DIR", "systems"));

  private Systems() {}

  /** Tell a system something about somebody; returns a receipt. Throws if the system is down. */
  static String write(String system, String who, String what) throws IOException {
    if (Files.exists(DIRECTORY.resolve(system + ".down"))) {
      throw new IOException(system + " is down");
    }
    String receipt = UUID.randomUUID().toString().substring(0, 8);
    Files.createDirectories(DIRECTORY);
    Files.writeString(
        DIRECTORY.resolve(system + ".log"),
        "%s %s %s\n".formatted(who, what, receipt),
        StandardOpenOption.CREATE,
        StandardOpenOption.APPEND);
    return receipt;
  }
}
