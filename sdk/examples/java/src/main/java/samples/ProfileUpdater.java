package samples;

import dev.restate.sdk.Context;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Service;
import dev.restate.sdk.common.TerminalException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A service that changes several systems, one after the other.
 *
 * <p>Each change is a run: once it has succeeded its result is recorded, and when a later one
 * fails, or this program or the server dies, the handler goes on after the last one recorded
 * instead of starting over.
 */
@Service
public class ProfileUpdater {
  public record Profile(String user, String email) {}

  @Handler
  public Map<String, String> update(Context ctx, Profile profile) {
    if (!profile.email().contains("@")) {
      // A TerminalException is an answer: it goes to the caller and is not retried.
      throw new TerminalException(400, "not an e-mail address: " + profile.email());
    }

    // Any other exception is retried. If billing is down, the CRM is not written a second time.
    Map<String, String> receipts = new LinkedHashMap<>();
    for (String system : List.of("crm", "billing", "newsletter")) {
      String receipt =
          ctx.run(
              "update " + system,
              String.class,
              () -> Systems.write(system, profile.user(), profile.email()));
      receipts.put(system, receipt);
    }
    return receipts;
  }
}
